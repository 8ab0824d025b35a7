"""Each node of a Cluster is looked after by itself, and who was promoted knows all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channels_redis_fast.commands.liveness import LivenessWords
from support.behaviours import until_it_works
from support.clusters import Cluster, group_on
from support.layers import opened
from support.pretending import beat, join, pretend
from support.sentinels import SentinelSet
from support.syncing import KINDS


async def test_each_node_of_a_cluster(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(cluster.host) as layer:
        name = await layer.new_channel()
        groups = {group_on(cluster, node): node for node in cluster.primaries}
        for group in groups:
            await layer.group_add(group, name)
        await beat(layer)
        for group, node in groups.items():
            node.client().flushdb()
            await beat(layer)
            assert await layer.group_members(group) == [name], group
        assert caplog.text.count("lost data") == len(groups)
        assert [one.id for one in await layer.processes()] == [layer.client_prefix]
        for group in groups:
            await layer.group_discard(group, name)
    assert not any(node.client().dbsize() for node in cluster.primaries)


async def test_who_was_discarded_on_another_node(cluster: Cluster) -> None:
    """He stays gone: that node lost nothing."""
    async with opened(cluster.host) as layer:
        name = await layer.new_channel()
        first, second, *_ = cluster.primaries
        kept, lost = group_on(cluster, first), group_on(cluster, second)
        for group in kept, lost:
            await layer.group_add(group, name)
        await beat(layer)
        first.client().zrem(f"asgi:group:{kept}", name)
        second.client().flushdb()
        await beat(layer)
        assert await layer.group_members(kept) == []
        assert await layer.group_members(lost) == [name]


def test_each_node_by_blocking_calls(cluster: Cluster) -> None:
    layer = KINDS["core"](hosts=[cluster.host])
    name = layer.sync.new_channel()
    groups = {group_on(cluster, node): node for node in cluster.primaries}
    for group in groups:
        layer.sync.group_add(group, name)

    def beat_now() -> None:
        layer._heartbeat._due = 0.0
        layer.sync.send("worker", {})

    beat_now()
    for group, node in groups.items():
        node.client().flushdb()
        beat_now()
        assert layer.sync.group_members(group) == [name]
    layer.sync.close()


async def test_the_dead_on_a_cluster(cluster: Cluster) -> None:
    """Groups on all nodes are rid of them."""
    async with opened(cluster.host) as layer:
        await beat(layer)
        client: Any = cluster.client()
        home = cluster.node_of(LivenessWords(layer._settings, lambda name: 0).key())
        dead = pretend(home.client(), 61)
        groups = {group_on(cluster, node): node for node in cluster.primaries}
        for group, node in groups.items():
            join(node.client(), group, dead, count=3)
        await beat(layer)
        for group in groups:
            assert await layer.group_count(group) == 0
            await layer.group_send(group, {})
        await layer._heartbeat.tend(layer._engine())
        assert not any(client.exists(f"asgi:group:{group}") for group in groups)


async def test_a_failover_makes_nobody_silent(own_sentinels: SentinelSet) -> None:
    """Nor does who was dead before it live after it."""
    host = own_sentinels.host
    async with opened(host) as layer, opened(host) as other:
        name = await other.new_channel()
        await other.group_add("room", name)
        await beat(layer)
        await beat(other)
        client = own_sentinels.primary.client()
        join(client, "room", pretend(client, 300))
        assert client.wait(1, 5000) == 1
        await asyncio.to_thread(own_sentinels.failover)
        for one in layer, other:
            await until_it_works(one)
        await beat(layer)
        assert await layer.group_members("room") == [name]
        assert len(await layer.processes()) == 2
