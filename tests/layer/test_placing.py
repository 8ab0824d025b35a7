"""Where a Pub/Sub layer's names are: each server has its own, whatever others do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from channels_redis_fast.pubsub import RedisPubSubChannelLayer as Layer
from channels_redis_fast.subscriptions import placement, seeking, subscriber
from support.clusters import Cluster, slot_of
from support.layers import end, soon
from support.polling import eventually
from support.programs import UNSHARDED
from support.pubsubs import GROUP, Consumers, everywhere, published, sharded, subscribed
from support.servers import Server

needs_sharded = pytest.mark.skipif(bool(UNSHARDED), reason=str(UNSHARDED))


@pytest.fixture
def halves() -> Iterator[Cluster]:
    """Two primaries without replicas, each of which serves what it has."""
    with Cluster(primaries=3, replicas=False) as own:
        own.serve_in_part()
        yield own


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few names are many."""
    for module in placement, subscriber:
        monkeypatch.setattr(module, "_BATCH", 4)


async def all_hear(layer: Layer, consumers: Consumers, names: list[str]) -> None:
    """Returns when each of some channels gets a message."""
    for name in names:
        await layer.send(name, {"to": name})

    def heard() -> bool:
        return all({"to": name} in consumers.got[name] for name in names)

    await eventually(heard, "the messages")


# One server of several is away


@pytest.mark.usefixtures("_small_batches")
async def test_a_host_that_is_away_keeps_no_name_of_others_waiting(
    server: Server, start_server: Callable[..., Server]
) -> None:
    away = start_server()
    async with published(server.url, away.url) as layer:
        names = [await layer.new_channel() for _ in range(40)]
        consumers = Consumers(layer, names)
        here = {name for name in names if layer.consistent_hash(name) == 0}
        await eventually(lambda: subscribed(server) == here, "the names")
        away.kill()
        await layer.close_pools()  # who waits has all names subscribed anew
        await eventually(lambda: subscribed(server) == here, "those of the other")
        await all_hear(layer, consumers, sorted(here))
        away.start()
        await eventually(lambda: subscribed(away) == {*names} - here, "the rest")
        await all_hear(layer, consumers, names)
        await consumers.aclose()


@needs_sharded
@pytest.mark.usefixtures("_small_batches")
async def test_a_node_that_is_away_keeps_no_name_of_others_waiting(
    halves: Cluster,
) -> None:
    async with published(halves.host) as layer:
        names = [await layer.new_channel() for _ in range(60)]
        consumers = Consumers(layer, names)
        await eventually(lambda: everywhere(sharded, halves) == {*names}, "the names")
        away = halves.primaries[1]
        there = sharded(away)
        away.kill()
        await layer.close_pools()
        rest = {*names} - there
        await eventually(lambda: everywhere(sharded, halves) == rest, "the others'")
        await all_hear(layer, consumers, sorted(rest))
        await consumers.aclose()


# A slot moves, or is served by nobody


@needs_sharded
async def test_a_name_is_given_up_and_taken_again_while_its_slot_moves(
    own_primaries: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The server's own push and its answers are told apart: nothing is cut or lost."""
    cluster = own_primaries
    async with published(cluster.host) as layer:
        source = cluster.node_of(GROUP)
        there = [name async for name in channels_at(cluster, source, layer)]
        await layer.group_add("room", there[0])
        target = next(node for node in cluster.primaries if node is not source)
        # The loop stands still meanwhile: the push is there, and not seen yet.
        cluster.migrate_slot(slot_of(GROUP), target)
        await layer.group_discard("room", there[0])
        await asyncio.gather(*(layer.group_add("room", name) for name in there))
        assert GROUP in sharded(target)
        await layer.group_send("room", {"n": 1})
        for name in there:
            assert await soon(layer, name) == {"n": 1}
            await layer.send(name, {"to": name})
            assert await soon(layer, name) == {"to": name}
        assert not caplog.records


async def channels_at(cluster: Cluster, node: Server, layer: Layer) -> Any:
    """Three channels whose names are on a node, and subscribed there."""
    found = 0
    while found < 3:
        name = await layer.new_channel()
        if cluster.node_of(name) is node:
            found += 1
            waiting = asyncio.create_task(soon(layer, name))
            await eventually(lambda n=name: n in sharded(node), "the name")
            await end(waiting)
            yield name


@needs_sharded
async def test_a_slot_that_nobody_serves_silences_nobody_else(halves: Cluster) -> None:
    async with published(halves.host) as layer:
        names = [await layer.new_channel() for _ in range(30)]
        consumers = Consumers(layer, names)
        await eventually(lambda: everywhere(sharded, halves) == {*names}, "the names")
        owner = halves.node_of(names[0])
        slot = slot_of(names[0])
        lost = {name for name in names if slot_of(name) == slot}
        # The connection is greeted anew with the name among the others.
        owner.client().client_kill_filter(_type="pubsub")
        owner.client().execute_command("CLUSTER", "DELSLOTS", slot)
        rest = {*names} - lost
        await eventually(lambda: everywhere(sharded, halves) == rest, "the others")
        await all_hear(layer, consumers, sorted(rest))
        owner.client().execute_command("CLUSTER", "ADDSLOTS", slot)
        await eventually(lambda: everywhere(sharded, halves) == {*names}, "all of them")
        await all_hear(layer, consumers, names)
        await consumers.aclose()


@needs_sharded
async def test_a_slot_that_nobody_serves_holds_up_no_other(
    halves: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that has to wait for its node leaves others free to follow theirs."""
    async with published(halves.host) as layer:
        names = [await layer.new_channel() for _ in range(2)]
        consumers = Consumers(layer, names)
        await eventually(lambda: everywhere(sharded, halves) == {*names}, "the names")
        lost, moving = names
        await eventually(
            lambda: not layer._loops.engine().placement._seeking, "their places"
        )
        for pause in "_FIRST_PAUSE", "_LONGEST_PAUSE":
            monkeypatch.setattr(seeking, pause, 60)
        source = halves.node_of(moving)
        target = next(node for node in halves.primaries if node is not source)
        halves.node_of(lost).client().execute_command(
            "CLUSTER", "DELSLOTS", slot_of(lost)
        )
        await eventually(
            lambda: layer._loops.engine().placement._seeking, "a name without a place"
        )
        halves.migrate_slot(slot_of(moving), target)
        await eventually(lambda: moving in sharded(target), "the other name")
        await consumers.aclose()
