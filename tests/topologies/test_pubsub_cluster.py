"""The Pub/Sub layer on a Redis Cluster, sharded and classic."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.pubsub import RedisPubSubChannelLayer as Layer
from support import programs
from support.clusters import SLOTS, Cluster, slot_of
from support.forking import in_child, needs_fork
from support.layers import end, soon
from support.polling import eventually
from support.programs import UNSHARDED
from support.pubsubs import (
    BACK,
    GONE,
    GROUP,
    TOLD,
    Consumers,
    everywhere,
    published,
    sharded,
)
from support.servers import Server

pytestmark = pytest.mark.skipif(bool(UNSHARDED), reason=str(UNSHARDED))


def classic(server: Server) -> set[str]:
    """The names that are subscribed there, classic."""
    return {name.decode() for name in server.client().pubsub_channels()}


def processed(server: Server) -> int:
    """How many times a message was published there."""
    stats = server.client().info("commandstats")
    return sum(
        stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]
        for name in ("publish", "spublish")
    )


async def test_all_methods(cluster: Cluster) -> None:
    async with published(cluster.host) as layer, published(cluster.host) as other:
        names = [await layer.new_channel() for _ in range(20)]
        for name in names:
            await layer.group_add("room", name)
            await other.send(name, {"to": name})
        await other.group_send("room", {"n": 1})
        for name in names:
            got = [await soon(layer, name) for _ in range(2)]
            assert {"to": name} in got
            assert {"n": 1} in got
        await other.send("worker", {"n": 2})
        assert await soon(layer, "worker") == {"n": 2}
        for name in names:
            await layer.group_discard("room", name)
        await eventually(lambda: not sharded(cluster.node_of(GROUP)) - set(names), "it")


async def test_only_the_owner_is_touched(cluster: Cluster) -> None:
    async with published(cluster.host) as layer, published(cluster.host) as other:
        names = [await layer.new_channel() for _ in range(20)]
        for name in names:
            await layer.group_add("room", name)
        owner = cluster.node_of(GROUP)
        for node in cluster.primaries:
            theirs = {name for name in names if cluster.node_of(name) is node}
            assert sharded(node) == theirs | ({GROUP} if node is owner else set())
        assert not everywhere(classic, cluster)
        before = {node: processed(node) for node in cluster.nodes}
        for n in range(100):
            await other.group_send("room", {"n": n})
        for name in names:
            assert [(await soon(layer, name))["n"] for _ in range(100)] == [*range(100)]
        grown = {node: processed(node) - before[node] for node in cluster.nodes}
        assert grown == {node: 100 if node is owner else 0 for node in cluster.nodes}


async def test_classic_when_told(cluster: Cluster) -> None:
    options = {"sharded_pubsub": False}
    async with (
        published(cluster.host, **options) as layer,
        published(cluster.host, **options) as other,
    ):
        name = await layer.new_channel()
        await layer.group_add("room", name)
        assert everywhere(classic, cluster) == {name, GROUP}
        assert not everywhere(sharded, cluster)
        await other.send(name, {"n": 1})
        assert await soon(layer, name) == {"n": 1}
        # As the incumbent does, at any node.
        for node in cluster.primaries:
            node.client().publish(name, b"\x81\xa1n\x02")
            assert await soon(layer, name) == {"n": 2}


class OldCluster(Cluster):
    """One of Redis 6.2."""

    def __init__(self) -> None:
        super().__init__(replicas=False)
        self.nodes = [
            Server(programs.redis62(), options=node.options) for node in self.nodes
        ]

    def _divide(self) -> None:
        size = SLOTS // len(self.nodes)
        for index, node in enumerate(self.nodes):
            last = SLOTS if node is self.nodes[-1] else (index + 1) * size
            node.client().execute_command(
                "CLUSTER", "ADDSLOTS", *range(index * size, last)
            )


async def test_classic_before_redis_7() -> None:
    with OldCluster() as cluster:
        async with published(cluster.host, **TOLD) as layer:
            names = [await layer.new_channel() for _ in range(10)]
            for name in names:
                await layer.group_add("room", name)
                await layer.send(name, {"to": name})
                assert await soon(layer, name) == {"to": name}
            await layer.group_send("room", {"n": 1})
            for name in names:
                assert await soon(layer, name) == {"n": 1}
            cluster.node_of(names[0]).client().client_kill_filter(_type="pubsub")
            assert [await soon(layer, names[0]) for _ in "12"] == [GONE, BACK]
            await layer.send(names[0], {"n": 2})
            assert await soon(layer, names[0]) == {"n": 2}


def refused(cluster: Cluster) -> int:
    """How many commands the nodes did not know."""
    errors_ = [node.client().info("errorstats") for node in cluster.primaries]
    return sum(one.get("errorstat_ERR", {"count": 0})["count"] for one in errors_)


async def _send_many(layer: Layer, n: int) -> None:
    assert await layer.group_send_many([("room", {"n": n})]) == [None]


async def _send_blocking(layer: Layer, n: int) -> None:
    await asyncio.to_thread(layer.sync.group_send, "room", {"n": n})


async def _send(layer: Layer, n: int) -> None:
    await layer.group_send("room", {"n": n})


@pytest.mark.parametrize(
    "confirmed", [True, pytest.param(False, marks=pytest.mark.slow)]
)
async def test_who_publishes_first_to_an_old_cluster(confirmed: bool) -> None:
    """Each layer asks, in whatever way it sends; nothing is lost, or overtaken."""
    with OldCluster() as cluster:
        async with published(cluster.host) as receiver:
            name = await receiver.new_channel()
            await receiver.group_add("room", name)
            before = refused(cluster)
            for send in _send, _send_many, _send_blocking:
                async with published(cluster.host, confirm_sends=confirmed) as layer:
                    sends = []
                    for n in range(30):
                        sends.append(asyncio.create_task(send(layer, n)))
                        await asyncio.sleep(0)
                    await asyncio.gather(*sends)
                    got = [(await soon(receiver, name))["n"] for _ in sends]
                    if send is not _send_blocking:  # threads have no order
                        assert got == list(range(30))
                    assert sorted(got) == list(range(30))
                    asked = refused(cluster)
                    assert asked > before
                    for n in range(3):
                        await send(layer, n)
                        assert await soon(receiver, name) == {"n": n}
                    assert refused(cluster) == asked
                    before = asked


@needs_fork
async def test_a_fork_while_a_cluster_is_asked(cluster: Cluster) -> None:
    """The child has none of the parent's callers: its own needn't ask again each."""
    async with published(cluster.host) as layer:
        (verbs,) = layer._verbs
        sending = asyncio.create_task(layer.group_send("room", {}))
        await eventually(lambda: verbs._queues, "the question")
        assert in_child(lambda: asyncio.run(_settles(layer))) == b"True"
        await sending


async def _settles(layer: Layer) -> bytes:
    await layer.group_send("room", {})
    await layer.close_pools()
    return str(all(verbs.is_settled for verbs in layer._verbs)).encode()


class Load:
    """Numbered messages to a group, as fast as they are confirmed."""

    def __init__(self, layer: Layer, group: str) -> None:
        self.sent: list[int] = []
        self._task = asyncio.create_task(self._send(layer, group))

    async def _send(self, layer: Layer, group: str) -> None:
        for n in itertools.count():
            # Never twice: what failed may have arrived.
            with contextlib.suppress(errors.RedisError):
                await layer.group_send(group, {"n": n})
                self.sent.append(n)
            await asyncio.sleep(0.001)

    async def more(self, count: int = 50) -> None:
        """Waits for so many more."""
        goal = len(self.sent) + count
        await eventually(lambda: len(self.sent) >= goal, "more load", timeout=20)

    async def aclose(self) -> None:
        """Ends it."""
        await end(self._task)


async def goes_on(load: Load, consumers: Consumers) -> None:
    """Returns when each consumer gets what is sent from now on."""
    goal = load.sent[-1]

    def arrives() -> bool:
        return all(numbers and numbers[-1] > goal for numbers in seen(consumers))

    await eventually(arrives, "the traffic", timeout=20)


def seen(consumers: Consumers) -> list[list[Any]]:
    """The numbers that each consumer got."""
    return [[m["n"] for m in got if "n" in m] for got in consumers.got.values()]


async def test_a_slot_migrates(own_primaries: Cluster) -> None:
    cluster = own_primaries
    async with published(cluster.host, **TOLD, capacity=10_000) as layer:
        names = [await layer.new_channel() for _ in range(5)]
        for name in names:
            await layer.group_add("room", name)
        consumers, load = Consumers(layer, names), Load(layer, "room")
        await load.more()
        source = cluster.node_of(GROUP)
        for target in (next(n for n in cluster.primaries if n is not source), source):
            slot = slot_of(GROUP)
            await asyncio.to_thread(cluster.migrate_slot, slot, target)
            await goes_on(load, consumers)
            assert GROUP in sharded(target)
        await load.aclose()
        await consumers.aclose()
        assert consumers.told() == {()}
        for numbers in seen(consumers):
            assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    "how", ["killed", pytest.param("swapped", marks=pytest.mark.slow)]
)
async def test_a_failover(own_cluster: Cluster, how: str) -> None:
    cluster = own_cluster
    async with published(cluster.host, **TOLD, capacity=10_000) as layer:
        names = [await layer.new_channel() for _ in range(20)]
        for name in names:
            await layer.group_add("room", name)
        consumers, load = Consumers(layer, names), Load(layer, "room")
        await load.more()
        fail = {"killed": cluster.kill_primary_of, "swapped": cluster.failover}[how]
        await asyncio.to_thread(fail, GROUP)
        await goes_on(load, consumers)
        if how == "killed":
            await eventually(lambda: consumers.all_got(BACK), "the return", timeout=20)
            assert consumers.told() == {("gone", "back")}
            assert everywhere(sharded, cluster) == {*names, GROUP}
        await load.aclose()
        await consumers.aclose()
        # What was published at the old primary, or at a replica while roles changed,
        # reaches the new primary's subscribers by the Cluster's bus, so late that they
        # may have it already, or later ones.
        if how == "killed":
            for numbers in seen(consumers):
                assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
async def test_who_joins_together_follows_a_slot(
    cluster: Cluster, is_warm: bool
) -> None:
    """All of them, though one answer tells them where it is."""
    async with published(cluster.host) as layer:
        names = [await layer.new_channel() for _ in range(3)]
        topology = layer._loops.engine().shards[0].topology
        owner = cluster.node_of(GROUP)
        wrong = next(node for node in cluster.primaries if node is not owner)
        warm = (f"warm{n}" for n in itertools.count())
        warming = next(g for g in warm if cluster.node_of(f"asgi__group__{g}") is wrong)
        if is_warm:
            await layer.group_add(warming, names[0])
        topology._owners[slot_of(GROUP)] = wrong.address
        await asyncio.gather(*(layer.group_add("room", name) for name in names))
        assert GROUP in sharded(owner)
        await layer.group_send("room", {"n": 1})
        assert [await soon(layer, name) for name in names] == [{"n": 1}] * 3
