"""Slots go to other nodes while commands are on their way to the former ones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import exceptions as errors

from support.clusters import Cluster, slot_of
from support.layers import opened, soon
from support.polling import eventually
from support.servers import Server

KEY = "asgiworker"


def other_than(cluster: Cluster, source: Server) -> Server:
    return next(node for node in cluster.primaries if node is not source)


async def begin(layer: Any, *numbers: int) -> list[asyncio.Task[None]]:
    """Begins a send for each number, which is written before this returns."""
    sends = [layer.send("worker", {"n": n}) for n in numbers]
    tasks = [asyncio.create_task(send) for send in sends]
    await asyncio.sleep(0)
    return tasks


async def in_order(layer: Any, tasks: list[asyncio.Task[None]]) -> None:
    """Whether all are there, in the order in which they began."""
    await asyncio.gather(*tasks)
    await layer.flush_sends()
    got = [(await soon(layer, "worker"))["n"] for _ in tasks]
    assert got == list(range(len(tasks)))


async def connect(layer: Any, cluster: Cluster) -> Any:
    """Sends something to each node; the layer's shard."""
    shard = layer._loops.engine().shards[0]
    for n in range(100):
        await layer.send(f"x{n}", {})
    await layer.flush_sends()
    assert all(shard._nodes[node.address].connection for node in cluster.primaries)
    return shard


@pytest.mark.parametrize(
    "confirm_sends", [True, pytest.param(False, marks=pytest.mark.slow)]
)
async def test_who_was_sent_elsewhere_keeps_his_place(
    own_primaries: Cluster, confirm_sends: bool
) -> None:
    """Though a reader, say, told where the key is before the node sent him there."""
    source = own_primaries.node_of(KEY)
    target = other_than(own_primaries, source)
    async with opened(own_primaries.host, confirm_sends=confirm_sends) as layer:
        shard = await connect(layer, own_primaries)
        own_primaries.migrate_slot(slot_of(KEY), target)
        tasks = await begin(layer, 0, 1, 2)
        where = f"{slot_of(KEY)} {target.host}:{target.port}"
        telling = shard.redirect(KEY.encode(), errors.MovedError(where))
        told = asyncio.create_task(telling)
        await in_order(layer, tasks + await begin(layer, 3, 4, 5))
        await told
        assert not shard._backlog.keys


async def test_a_node_that_stands_still(own_primaries: Cluster) -> None:
    """What was written to it comes first, though others tell of the new owner."""
    source = own_primaries.node_of(KEY)
    target = other_than(own_primaries, source)
    async with opened(own_primaries.host, command_timeout=20) as layer:
        shard = await connect(layer, own_primaries)
        own_primaries.migrate_slot(slot_of(KEY), target)
        source.pause()
        try:
            tasks = await begin(layer, 0, 1, 2)
            looking = asyncio.create_task(shard.look_up())
            owner = shard.topology.owner
            await eventually(lambda: owner(KEY) == target.address, "it", timeout=20)
            tasks += await begin(layer, 3, 4, 5)
            asked = await begin_elsewhere(layer, own_primaries, target)
            await asyncio.wait_for(asked, 10)  # other keys wait for nobody
        finally:
            source.resume()
        await looking
        await in_order(layer, tasks)


async def begin_elsewhere(layer: Any, cluster: Cluster, node: Server) -> Any:
    """A send to a channel of that node."""
    names = (f"y{n}" for n in range(1000))
    name = next(name for name in names if cluster.node_of(f"asgi{name}") is node)
    return asyncio.ensure_future(layer.send(name, {}))
