"""A Cluster's nodes send callers elsewhere: to and fro, too early, or to no Cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import exceptions as errors

from support.clusters import Cluster, group_on, key_of, slot_of
from support.layers import call, opened, soon
from support.polling import eventually
from support.programs import UNSHARDED
from support.servers import Server, kept
from support.syncing import KINDS

WAYS = ["loop", "thread"]

# `make test` tries each kind and each way once.
in_some_ways = pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("core", "loop"),
        ("pubsub", "thread"),
        pytest.param("core", "thread", marks=pytest.mark.slow),
        pytest.param("pubsub", "loop", marks=pytest.mark.slow),
    ],
)


@asynccontextmanager
async def layer_of(kind: str, *hosts: Any, **options: Any) -> AsyncIterator[Any]:
    """A layer of either kind, closed at the end."""
    layer = KINDS[kind](hosts=list(hosts), **options)
    try:
        yield layer
    finally:
        await layer.close_pools()
        await asyncio.to_thread(layer.sync.close)


@pytest.fixture
def bare_cluster() -> Iterator[Cluster]:
    """Primaries without replicas, each of which serves what it has."""
    with Cluster(replicas=False) as own:
        own.serve_in_part()
        yield own


@pytest.fixture(
    params=["unknown-endpoint", pytest.param("hostname", marks=pytest.mark.slow)]
)
def nameless(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Cluster]:
    """A Cluster whose nodes give the others' ports only, or `?` for their hosts."""
    option = "cluster-preferred-endpoint-type"
    for node in cluster.nodes:
        node.client().config_set(option, request.param)
    yield cluster
    for node in cluster.nodes:
        node.client().config_set(option, "ip")


# Without a host


@pytest.mark.skipif(bool(UNSHARDED), reason=str(UNSHARDED))
@in_some_ways
async def test_nodes_that_give_no_host(nameless: Cluster, kind: str, way: str) -> None:
    group = "asgi:group:room" if kind == "core" else "asgi__group__room"
    host = {"cluster": [nameless.nodes[0].address]}
    async with layer_of(kind, host) as layer, layer_of(kind, host) as other:
        name = await layer.new_channel()
        keys = {group, "asgiworker", key_of(name) if kind == "core" else name}
        for slot in map(slot_of, keys):
            source = nameless.node_of_slot(slot)
            target = next(node for node in nameless.primaries if node is not source)
            # The nodes move slots by the others' addresses, which they know.
            for goal in target, source:
                for _ in moves(nameless, slot, goal):
                    await layer.group_add("room", name)
                    waiting = [
                        asyncio.create_task(soon(layer, channel))
                        for channel in (name, "worker")
                    ]
                    await call(other, way, "send", "worker", {"n": 1})
                    await call(other, way, "group_send", "room", {"n": 2})
                    assert await asyncio.gather(*waiting) == [{"n": 2}, {"n": 1}]
                    await layer.group_discard("room", name)


def moves(cluster: Cluster, slot: int, target: Server) -> Iterator[str]:
    """The steps of moving a slot, of which those count that callers notice."""
    for step in cluster.migration(slot, target):
        if step != "importing":
            yield step


# To and fro


@in_some_ways
async def test_nodes_that_send_callers_to_each_other(
    bare_cluster: Cluster, kind: str, way: str
) -> None:
    """A call ends at its deadline, with what was said."""
    cluster = bare_cluster
    group = "asgi:group:room" if kind == "core" else "asgi__group__room"
    async with layer_of(kind, cluster.host, command_timeout=0.3) as layer:
        name = await layer.new_channel()
        calls = [
            (group, "group_send", "room", {}),
            ("asgiworker", "send", "worker", {}),
        ]
        if kind == "core":
            calls.append((group, "group_discard", "room", name))
        if way == "loop" or kind == "core":
            calls.append((group, "group_add", "room", name))
        if way == "thread":
            calls.append(("asgiworker", "receive", "worker"))
        for key in {key for key, *_ in calls}:
            one = cluster.node_of(key)
            other = next(node for node in cluster.primaries if node is not one)
            cluster.contradict(slot_of(key), one, other)
        for _, *command in calls:
            with pytest.raises(errors.RedisError):
                await asyncio.wait_for(call(layer, way, *command), 20)


@pytest.mark.slow
async def test_a_slot_that_nobody_serves(bare_cluster: Cluster) -> None:
    """Who waits for it asks whose it is now and then, not all the time."""
    cluster, slot = bare_cluster, slot_of("asgiworker")
    async with opened(cluster.host, command_timeout=1.0) as layer:
        await layer.send("worker", {})
        for node in cluster.nodes:
            node.client().execute_command("CLUSTER DELSLOTS", slot)
            node.client().config_resetstat()
        with pytest.raises(errors.ClusterDownError):
            await layer.send("worker", {})
        stats = [node.client().info("commandstats") for node in cluster.nodes]
        asked = [one.get("cmdstat_cluster|slots", {"calls": 0}) for one in stats]
        assert 1 <= sum(one["calls"] for one in asked) < 20
        cluster.nodes[0].client().execute_command("CLUSTER ADDSLOTS", slot)
        await asyncio.wait_for(layer.send("worker", {}), 10)


async def test_a_look_up_that_is_cancelled_before_it_begins(cluster: Cluster) -> None:
    """As all tasks are at the end of `asyncio.run`: those that end may send."""
    async with opened(cluster.host) as layer:
        first = asyncio.create_task(layer.send("worker", {}))
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await layer.send("worker", {})
        with pytest.raises(asyncio.CancelledError):
            await first


@pytest.mark.slow
@pytest.mark.skipif(bool(UNSHARDED), reason=str(UNSHARDED))
async def test_a_search_for_a_node_that_is_cancelled(bare_cluster: Cluster) -> None:
    """By who cancels all tasks: the name is looked for all the same."""
    cluster, slot = bare_cluster, slot_of("asgi__group__room")
    async with layer_of("pubsub", cluster.host) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        placement = layer._loops.engine().placement
        for node in cluster.nodes:
            node.client().execute_command("CLUSTER DELSLOTS", slot)
        await eventually(lambda: placement._seeking, "it to be looked for")
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        cluster.nodes[0].client().execute_command("CLUSTER ADDSLOTS", slot)
        await eventually(lambda: not placement._seeking, "it to be found")
        await layer.group_send("room", {"n": 1})
        assert await soon(layer, name) == {"n": 1}


# While a slot is on its way


@pytest.mark.parametrize("way", WAYS)
async def test_flush_while_a_slot_moves(cluster: Cluster, way: str) -> None:
    async with opened(cluster.host) as layer:
        source = cluster.node_of("asgiworker")
        target = next(node for node in cluster.primaries if node is not source)
        for node, goal in (source, target), (target, source):
            for step in cluster.migration(slot_of("asgiworker"), goal):
                await layer.send("worker", {})
                await call(layer, way, "flush")
                assert not any(kept(n.client()) for n in (node, goal)), step
        await asyncio.to_thread(layer.sync.close)


async def test_who_waits_for_a_node_that_owns_nothing_gets_it(
    own_cluster: Cluster,
) -> None:
    """An answer of the others, for whom it is no owner (yet), ends no attempt."""
    primaries = own_cluster.primaries
    async with opened(own_cluster.host) as layer:
        await layer.send("worker", {})
        shard = layer._loops.engine().shards[0]
        new = next(node for node in own_cluster.nodes if node not in primaries)
        waiting = asyncio.create_task(shard._node(new.address).get())
        await asyncio.sleep(0)
        await shard.look_up()
        assert await waiting


# A node that is gone


@pytest.mark.parametrize(
    "way", ["loop", pytest.param("thread", marks=pytest.mark.slow)]
)
async def test_who_takes_over_a_slot_restores_its_groups(
    bare_cluster: Cluster, way: str
) -> None:
    """Though it was connected to before, and has lost nothing of its own."""
    dying, heir, _ = bare_cluster.primaries
    lost, own = group_on(bare_cluster, dying), group_on(bare_cluster, heir)
    async with opened(bare_cluster.host, command_timeout=3) as layer:
        name = await layer.new_channel()
        while bare_cluster.node_of(key_of(name)) is dying:
            name = await layer.new_channel("other")
        for group in lost, own:
            await call(layer, way, "group_add", group, name)
        heir.client().zrem(f"asgi:group:{own}", name)  # discarded by others
        dying.kill()
        await asyncio.to_thread(
            bare_cluster.give_slot, slot_of(f"asgi:group:{lost}"), heir
        )
        if way == "loop":  # by itself: who only receives sends nothing
            key = f"asgi:group:{lost}"
            await eventually(lambda: heir.client().zscore(key, name), "it", timeout=20)
        await call(layer, way, "group_send", lost, {"n": 1})
        assert await soon(layer, name) == {"n": 1}
        assert not heir.client().exists(f"asgi:group:{own}")
        await asyncio.to_thread(layer.sync.close)


# A node that is named as a server


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_node_that_is_named_as_a_server(
    cluster: Cluster, kind: str, way: str
) -> None:
    """It is refused, with a hint, for what it hasn't got: to those who receive, too."""
    key = "asgiworker"
    other = next(node for node in cluster.primaries if node is not cluster.node_of(key))
    async with layer_of(kind, other.url) as layer:
        for command in ("send", "worker", {}), ("receive", "worker"):
            with pytest.raises(errors.ResponseError, match='"cluster"') as caught:
                await asyncio.wait_for(call(layer, way, *command), 20)
            assert str(other.port) in str(caught.value)
