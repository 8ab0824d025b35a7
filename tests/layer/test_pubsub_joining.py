"""Which names a Pub/Sub layer is subscribed to, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from channels_redis_fast.client.connection import PipelinedConnection
from channels_redis_fast.pubsub import RedisPubSubChannelLayer as Layer
from support.layers import end, nothing, soon
from support.peers import PUBSUB
from support.polling import eventually
from support.pubsubs import published, subscribed, subscribers
from support.servers import Server


@pytest.fixture
async def layer(valkey: Server) -> AsyncIterator[Layer]:
    async with published(valkey.url) as layer:
        yield layer


@pytest.mark.parametrize("count", [200, pytest.param(1_000, marks=pytest.mark.slow)])
async def test_a_join_is_confirmed(
    layer: Layer, start_peer: Any, valkey: Server, count: int
) -> None:
    peer = await start_peer(PUBSUB, {"hosts": [valkey.url]})
    name = await layer.new_channel()
    got = []
    for n in range(count):
        await layer.group_add(f"room{n}", name)
        await peer.group_send(f"room{n}", {"n": n})
        got.append((await soon(layer, name))["n"])
    assert got == list(range(count))


async def test_a_new_channel_is_subscribed(layer: Layer, valkey: Server) -> None:
    for _ in range(100):
        assert subscribers(valkey, await layer.new_channel()) == 1


async def test_one_subscription_per_name(
    layer: Layer, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[bytes]] = []
    flush = PipelinedConnection._flush

    def spy(self: PipelinedConnection) -> None:
        if self._on_push is not None:
            written.append(list(self._buffer))
        flush(self)

    names = [await layer.new_channel() for _ in range(100)]
    monkeypatch.setattr(PipelinedConnection, "_flush", spy)
    await asyncio.gather(*(layer.group_add("room", name) for name in names))
    assert [len(commands) for commands in written] == [1]
    assert subscribers(valkey, "asgi__group__room") == 1
    await asyncio.gather(*(layer.group_add(f"room{n}", names[0]) for n in range(99)))
    assert [len(commands) for commands in written] == [1, 99]
    for name in names[1:]:
        await layer.group_discard("room", name)
    await layer.group_add("after", names[0])  # confirmed after all of those
    assert subscribers(valkey, "asgi__group__room") == 1
    await layer.group_discard("room", names[0])
    await eventually(lambda: not subscribers(valkey, "asgi__group__room"), "the end")


async def test_leaving_and_joining_at_once(layer: Layer, valkey: Server) -> None:
    name = await layer.new_channel()
    for _ in range(100):
        await layer.group_add("room", name)
        await asyncio.gather(
            layer.group_discard("room", name), layer.group_add("room", name)
        )
        await layer.group_send("room", {"n": 1})
        assert await soon(layer, name) == {"n": 1}
        await layer.group_discard("room", name)
    await eventually(lambda: subscribed(valkey) == {name}, "the last to leave")


async def test_a_cancelled_join_is_none(layer: Layer, valkey: Server) -> None:
    name = await layer.new_channel()
    joining = asyncio.create_task(layer.group_add("room", name))
    await asyncio.sleep(0)
    await end(joining)
    await eventually(lambda: subscribed(valkey) == {name}, "the join to be undone")
    await layer.group_send("room", {"n": 1})
    assert await nothing(layer, name)


@pytest.mark.parametrize("cancelled", [0, 1])
async def test_a_cancelled_join_undoes_no_other(
    layer: Layer, valkey: Server, cancelled: int
) -> None:
    name = await layer.new_channel()
    joins = [asyncio.create_task(layer.group_add("room", name)) for _ in range(2)]
    await asyncio.sleep(0)
    await end(joins.pop(cancelled))
    await joins[0]
    await layer.group_send("room", {"n": 1})
    assert await soon(layer, name) == {"n": 1}
    # A member stays one, whatever becomes of who adds it again.
    again = asyncio.create_task(layer.group_add("room", name))
    await asyncio.sleep(0)
    await end(again)
    assert subscribers(valkey, "asgi__group__room") == 1
    await layer.group_discard("room", name)
    await eventually(lambda: subscribed(valkey) == {name}, "the last to leave")


async def test_a_failed_join_undoes_none_that_came_later(
    layer: Layer, valkey: Server
) -> None:
    name = await layer.new_channel()
    early = asyncio.create_task(layer.group_add("room", name))
    await asyncio.sleep(0)
    await layer.group_discard("room", name)
    late = asyncio.create_task(layer.group_add("room", name))
    await asyncio.sleep(0)
    await end(early)
    await late
    await layer.group_send("room", {"n": 1})
    assert await soon(layer, name) == {"n": 1}


async def test_leaving_while_the_node_is_looked_up(
    layer: Layer, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    async def node_of(key: bytes, *, anew: bool = False) -> None:
        await gate.wait()

    name = await layer.new_channel()
    monkeypatch.setattr(layer._loops.engine().shards[0], "node_of", node_of)
    joining = asyncio.create_task(layer.group_add("room", name))
    await asyncio.sleep(0)
    await layer.group_discard("room", name)
    gate.set()
    await joining
    await layer.group_add("after", name)
    assert subscribed(valkey) == {name, "asgi__group__after"}
