"""The Pub/Sub layer's methods, on a real server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest

from channels_redis_fast.pubsub import RedisPubSubChannelLayer as Layer
from channels_redis_fast.subscriptions import placement
from support.layers import MESSAGES, end, nothing, soon
from support.polling import eventually
from support.pubsubs import published, subscribed
from support.servers import Server, kept


@pytest.fixture
async def layer(valkey: Server) -> AsyncIterator[Layer]:
    async with published(valkey.url) as layer:
        yield layer


@pytest.fixture
async def other(valkey: Server) -> AsyncIterator[Layer]:
    """A second layer on the same server: another process, as far as Redis sees."""
    async with published(valkey.url) as layer:
        yield layer


@pytest.fixture(params=["process", "normal"])
async def channel(request: pytest.FixtureRequest, layer: Layer) -> str:
    """A channel of the layer, of either kind."""
    return await layer.new_channel() if request.param == "process" else "worker"


# One channel


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
async def test_a_message_arrives_as_sent(
    layer: Layer, other: Layer, channel: str, message: dict[str, Any]
) -> None:
    sent = dict(message)
    await other.send(channel, message)
    assert await soon(layer, channel) == sent
    assert message == sent


async def test_every_server_does(any_server: Server) -> None:
    async with published(any_server.url) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        await layer.send(name, {"n": 1})
        await layer.group_send("room", {"n": 2})
        await layer.send("worker", {"n": 3})
        assert [await soon(layer, name) for _ in range(2)] == [{"n": 1}, {"n": 2}]
        assert await soon(layer, "worker") == {"n": 3}


async def test_order(layer: Layer, other: Layer) -> None:
    name = await layer.new_channel()
    for start in range(0, 1_000, 50):
        batch = range(start, start + 50)
        await asyncio.gather(*(other.send(name, {"n": n}) for n in batch))
        assert [(await soon(layer, name))["n"] for _ in batch] == list(batch)


async def test_two_waiters_of_one_channel(layer: Layer, channel: str) -> None:
    waiting = [asyncio.create_task(soon(layer, channel)) for _ in range(2)]
    await asyncio.sleep(0)
    for n in range(2):
        await layer.send(channel, {"n": n})
    assert sorted(m["n"] for m in await asyncio.gather(*waiting)) == [0, 1]


async def test_the_names_and_the_payload(layer: Layer, valkey: Server) -> None:
    listener = valkey.client().pubsub()
    listener.psubscribe("*")
    name, short = await layer.new_channel(), await layer.new_channel("x")
    assert re.fullmatch(r"asgispecific\.[0-9a-f]{32}", name)
    assert re.fullmatch(r"asgix[0-9a-f]{32}", short)
    await layer.group_add("room", name)
    assert subscribed(valkey) == {name, short, "asgi__group__room"}
    await layer.send(name, {"n": 1})
    await layer.group_send("room", {"n": 2})
    heard: list[Any] = []
    while len(heard) < 2:
        one = listener.get_message(timeout=5)
        assert one is not None
        if one["type"] == "pmessage":
            heard.append((one["channel"].decode(), msgpack.unpackb(one["data"])))
    listener.close()
    assert heard == [(name, {"n": 1}), ("asgi__group__room", {"n": 2})]


async def test_a_prefix_need_not_be_a_name(valkey: Server) -> None:
    async with published(valkey.url, prefix="my app: ") as layer:
        name = await layer.new_channel()
        assert name.startswith("my app: specific.")
        await layer.group_add("room", name)
        await layer.send(name, {"n": 1})
        await layer.group_send("room", {"n": 2})
        assert [await soon(layer, name) for _ in range(2)] == [{"n": 1}, {"n": 2}]


async def test_database_numbers_are_ignored(valkey: Server, layer: Layer) -> None:
    async with published(f"{valkey.url}/5") as elsewhere:
        name = await layer.new_channel()
        await elsewhere.send(name, {"n": 1})
        assert await soon(layer, name) == {"n": 1}


async def test_several_shards(valkey: Server, redis62: Server) -> None:
    hosts = [valkey.url, redis62.url]
    async with published(*hosts) as layer, published(*hosts) as sender:
        names = [await layer.new_channel() for _ in range(20)]
        assert subscribed(valkey) | subscribed(redis62) == set(names)
        assert subscribed(valkey)
        assert subscribed(redis62)
        for name in names:
            await layer.group_add("room", name)
            await sender.send(name, {"to": name})
        await sender.group_send("room", {"n": 1})
        for name in names:
            got = [await soon(layer, name) for _ in range(2)]
            assert {"to": name} in got
            assert {"n": 1} in got
        for n in range(4):
            await sender.send("worker", {"n": n})
        assert sorted([(await soon(layer, "worker"))["n"] for _ in range(4)]) == [
            0,
            1,
            2,
            3,
        ]


# Groups


async def test_a_group_reaches_its_members(layer: Layer, other: Layer) -> None:
    here = [await layer.new_channel() for _ in range(3)]
    there = [await other.new_channel() for _ in range(2)]
    members = {here[0]: layer, here[1]: layer, there[0]: other}
    for name, home in members.items():
        await home.group_add("room", name)
        await home.group_add("room", name)  # joining twice is joining once
    await layer.group_send("room", {"n": 1})
    for name, home in members.items():
        assert await soon(home, name) == {"n": 1}
    for name, home in {**members, here[2]: layer, there[1]: other}.items():
        assert await nothing(home, name)


async def test_discarded_members_get_nothing(layer: Layer, other: Layer) -> None:
    stays, goes = await layer.new_channel(), await layer.new_channel()
    for name in stays, goes:
        await layer.group_add("room", name)
    await layer.group_discard("room", goes)
    await layer.group_discard("room", "nobody")
    await layer.group_discard("no-room", stays)
    await other.group_send("room", {"n": 1})
    assert await soon(layer, stays) == {"n": 1}
    assert await nothing(layer, goes)


@pytest.mark.parametrize("message", [{"n": 1}, {"list": [{"n": 1}]}], ids=repr)
async def test_members_share_no_message(layer: Layer, message: dict[str, Any]) -> None:
    names = [await layer.new_channel() for _ in range(3)]
    for name in names:
        await layer.group_add("room", name)
    await layer.group_send("room", message)
    for name in names:
        got = await soon(layer, name)
        assert got == message
        for value in got.values():
            if isinstance(value, list):
                value[0]["n"] = "changed"
        got["more"] = 1


async def test_a_message_is_decoded_once(
    layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, kind = [], type(layer._codec)
    open_ = kind.open

    def count(codec: Any, member: bytes, key: bytes) -> Any:
        opened.append(member)
        return open_(codec, member, key)

    monkeypatch.setattr(kind, "open", count)
    names = [await layer.new_channel() for _ in range(50)]
    for name in names:
        await layer.group_add("room", name)
    await layer.group_send("room", {"n": 1})
    for name in names:
        assert await soon(layer, name) == {"n": 1}
    assert len(opened) == 1


@pytest.mark.parametrize(
    "group", ["__group__", "x__group__y", "asgi", "asgi__group__room", "room."]
)
async def test_groups_named_like_separators(layer: Layer, group: str) -> None:
    ours, theirs = await layer.new_channel(), await layer.new_channel()
    await layer.group_add(group, ours)
    await layer.group_add("room", theirs)
    await layer.group_send(group, {"n": 1})
    assert await soon(layer, ours) == {"n": 1}
    assert await nothing(layer, theirs)
    await layer.group_discard(group, ours)
    await layer.group_send(group, {"n": 1})
    assert await nothing(layer, ours)


# Flush and close


async def test_flush(layer: Layer, valkey: Server) -> None:
    valkey.client().set("other", 1)
    name = await layer.new_channel()
    await layer.group_add("room", name)
    await layer.send(name, {"n": 1})
    await layer.send("worker", {"n": 1})
    await eventually(lambda: layer._mailboxes.snapshot(), "the message")
    waiting = asyncio.create_task(soon(layer, await layer.new_channel()))
    await asyncio.sleep(0)
    await layer.flush()
    assert kept(valkey.client()) == [b"other"]
    await layer.group_send("room", {"n": 2})
    for channel in name, "worker":
        assert await nothing(layer, channel)
    await end(waiting)


async def test_flush_keeps_channels(layer: Layer, valkey: Server) -> None:
    name = await layer.new_channel()
    await layer.flush()
    async with published(valkey.url) as other:
        await other.send(name, {"n": 1})
    assert await soon(layer, name) == {"n": 1}


async def test_close_pools_ends_no_receive(layer: Layer, valkey: Server) -> None:
    name = await layer.new_channel()
    await layer.group_add("room", name)
    waiting = asyncio.create_task(soon(layer, name))
    await asyncio.sleep(0)
    await layer.close_pools()
    names = {name, "asgi__group__room"}
    await eventually(lambda: subscribed(valkey) == names, "both to be subscribed")
    await layer.group_send("room", {"n": 1})
    assert await waiting == {"n": 1}
    await layer.close_pools()
    await eventually(lambda: not valkey.client().client_list(_type="pubsub"), "the end")


async def test_idle_connections_are_closed(
    layer: Layer, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "_IDLE", 0.0)
    name = await layer.new_channel()
    await layer.group_add("room", name)
    await layer.group_discard("room", name)
    layer._subscriptions.end(name)
    (shard,) = layer._loops.engine().shards

    def connected() -> int:
        return sum(link.connection is not None for link in shard._links)

    await layer.group_send("room", {})
    assert connected() == 2
    await eventually(lambda: connected() == 1, "the end")
    await layer.group_add("room", name)
    await layer.group_send("room", {"n": 1})
    assert await soon(layer, name) == {"n": 1}
