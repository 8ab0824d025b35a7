"""The core layer's methods, on a real server."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.exceptions import ChannelFull

from channels_redis_fast.core import RedisChannelLayer
from support.layers import MESSAGES, end, nothing, opened, soon
from support.polling import eventually
from support.servers import Server, kept


@pytest.fixture
async def layer(valkey: Server) -> AsyncIterator[RedisChannelLayer]:
    async with opened(valkey.url) as layer:
        yield layer


@pytest.fixture
async def other(valkey: Server) -> AsyncIterator[RedisChannelLayer]:
    """A second layer on the same server: another process, as far as Redis sees."""
    async with opened(valkey.url) as layer:
        yield layer


@pytest.fixture(params=["process", "normal"])
async def channel(request: pytest.FixtureRequest, layer: RedisChannelLayer) -> str:
    """A channel of the layer, of either kind."""
    return await layer.new_channel() if request.param == "process" else "worker"


# One channel


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
async def test_a_message_arrives_as_sent(
    layer: RedisChannelLayer, channel: str, message: dict[str, Any]
) -> None:
    sent = dict(message)
    await layer.send(channel, message)
    assert await soon(layer, channel) == sent
    assert message == sent


async def test_a_receiver_may_be_there_first(
    layer: RedisChannelLayer, other: RedisChannelLayer, channel: str
) -> None:
    waiting = asyncio.create_task(soon(layer, channel))
    await asyncio.sleep(0)
    await other.send(channel, {"type": "t"})
    assert await waiting == {"type": "t"}


async def test_every_server_does(any_server: Server) -> None:
    async with opened(any_server.url) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        await layer.send(name, {"n": 1})
        await layer.group_send("room", {"n": 2})
        assert [await soon(layer, name) for _ in range(2)] == [{"n": 1}, {"n": 2}]


async def test_order(layer: RedisChannelLayer, channel: str) -> None:
    numbers: list[int] = []

    async def read() -> None:
        while True:
            numbers.append((await layer.receive(channel))["n"])

    reading = asyncio.create_task(read())
    for start in range(0, 1_000, 50):
        # Written together: what is sent first arrives first all the same.
        batch = range(start, start + 50)
        await asyncio.gather(*(layer.send(channel, {"n": n}) for n in batch))
        await eventually(lambda end=batch.stop: len(numbers) >= end, "the batch")
    await end(reading)
    assert numbers == list(range(1_000))


async def test_new_channels(layer: RedisChannelLayer) -> None:
    names = [await layer.new_channel() for _ in range(100)]
    assert len(set(names)) == 100
    prefix = layer.client_prefix
    assert re.fullmatch(r"[\w-]{16}", prefix, re.ASCII)
    for name in names:
        assert re.fullmatch(rf"specific\.{prefix}![\w-]{{16}}", name, re.ASCII)
        assert layer.require_valid_channel_name(name)
    assert (await layer.new_channel("chat")).startswith(f"chat.{prefix}!")


async def test_channels_of_all_prefixes_are_read(layer: RedisChannelLayer) -> None:
    names = [await layer.new_channel(f"prefix{i}") for i in range(5)]
    waiting = [asyncio.create_task(soon(layer, name)) for name in names]
    for i, name in enumerate(names):
        await layer.send(name, {"n": i})
    assert await asyncio.gather(*waiting) == [{"n": i} for i in range(5)]


async def test_two_waiters_of_one_channel(
    layer: RedisChannelLayer, channel: str
) -> None:
    waiting = [asyncio.create_task(soon(layer, channel)) for _ in range(2)]
    await asyncio.sleep(0)
    for n in range(2):
        await layer.send(channel, {"n": n})
    assert await asyncio.gather(*waiting) == [{"n": 0}, {"n": 1}]


async def test_keys_and_their_life(layer: RedisChannelLayer, valkey: Server) -> None:
    name = await layer.new_channel()
    await layer.group_add("room", name)
    await layer.send(name, {"type": "t"})
    await layer.send("worker", {"type": "t"})
    client = valkey.client()
    local = f"asgispecific.{layer.client_prefix}!".encode()
    assert set(kept(client)) == {local, b"asgiworker", b"asgi:group:room"}
    assert client.ttl(local) == client.ttl("asgiworker") == 60
    assert client.ttl("asgi:group:room") == 86_400
    assert client.zrange("asgi:group:room", 0, -1) == [name.encode()]


async def test_unread_messages_expire(valkey: Server) -> None:
    """And take no room then."""
    async with opened(valkey.url, expiry=0.2, capacity=1) as layer:
        await layer.send("worker", {"n": 1})
        await asyncio.sleep(0.25)
        await layer.send("worker", {"n": 2})
        assert await soon(layer, "worker") == {"n": 2}


async def test_keys_of_unread_messages_expire(valkey: Server) -> None:
    async with opened(valkey.url, expiry=1) as layer:
        await layer.send("worker", {"n": 1})
        assert valkey.client().exists("asgiworker")
        gone = lambda: not valkey.client().exists("asgiworker")  # noqa: E731
        await eventually(gone, "the key to expire")


# Capacity


async def test_capacity(valkey: Server) -> None:
    rules = {"small.*": 2, re.compile("^zero$"): 0, "small.not": 9}
    async with opened(valkey.url, capacity=5, channel_capacity=rules) as layer:
        expected = {"some": 5, "small.one": 2, "small.not": 2, "zero": 0}
        for channel, capacity in expected.items():
            for _ in range(capacity):
                await layer.send(channel, {"type": "t"})
            with pytest.raises(ChannelFull, match=channel):
                await layer.send(channel, {"type": "t"})
            assert valkey.client().zcard(f"asgi{channel}") == capacity
        await soon(layer, "some")
        await layer.send("some", {"type": "t"})  # there is room again


async def test_capacity_is_a_process_key_s(valkey: Server) -> None:
    async with opened(valkey.url, capacity=3) as layer:
        names = [await layer.new_channel() for _ in range(4)]
        for name in names[:3]:
            await layer.send(name, {"type": "t"})
        with pytest.raises(ChannelFull, match=names[3]):
            await layer.send(names[3], {"type": "t"})


# Groups


async def test_a_group_reaches_its_members(
    layer: RedisChannelLayer, other: RedisChannelLayer
) -> None:
    here = [await layer.new_channel() for _ in range(3)]
    there = [await other.new_channel() for _ in range(2)]
    members = {here[0]: layer, here[1]: layer, there[0]: other, "worker": other}
    for name, home in members.items():
        await home.group_add("room", name)
        await home.group_add("room", name)  # joining twice is joining once
    await layer.group_send("room", {"type": "t", "n": 1})
    for name, home in members.items():
        assert await soon(home, name) == {"type": "t", "n": 1}
    everybody = {**dict.fromkeys(here, layer), **dict.fromkeys(there, other)}
    for name, home in {**everybody, "worker": layer}.items():
        assert await nothing(home, name)


async def test_discarded_members_get_nothing(
    layer: RedisChannelLayer, other: RedisChannelLayer, valkey: Server
) -> None:
    stays, goes = await layer.new_channel(), await layer.new_channel()
    for name in stays, goes:
        await layer.group_add("room", name)
    await other.group_discard("room", goes)
    await other.group_discard("room", "nobody")
    await other.group_discard("no-room", stays)
    await other.group_send("room", {"n": 1})
    assert await soon(layer, stays) == {"n": 1}
    assert await nothing(layer, goes)
    await layer.group_discard("room", stays)
    assert not valkey.client().exists("asgi:group:room")


async def test_a_group_without_members(layer: RedisChannelLayer) -> None:
    await layer.group_send("room", {"type": "t"})


@pytest.mark.parametrize("message", [{"n": 1}, {"list": [{"n": 1}]}], ids=repr)
async def test_members_share_no_message(
    layer: RedisChannelLayer, message: dict[str, Any]
) -> None:
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


async def test_full_members_miss_a_message(
    valkey: Server, other: RedisChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(valkey.url, capacity=2) as layer:
        name, far = await layer.new_channel(), await other.new_channel()
        for member in name, far, "worker":
            await layer.group_add("room", member)
        for _ in range(2):
            await layer.send(name, {"n": 0})
        with caplog.at_level(logging.INFO, "channels_redis_fast"):
            await layer.group_send("room", {"n": 1})
        assert "1 of 3 channels over capacity in group room" in caplog.messages
        assert await soon(other, far) == await soon(layer, "worker") == {"n": 1}
        assert [await soon(layer, name) for _ in range(2)] == [{"n": 0}] * 2


async def test_memberships_expire_when_not_refreshed(valkey: Server) -> None:
    options = {"group_expiry": 0.3, "refresh_groups": False}
    async with opened(valkey.url, **options) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        await layer.group_send("room", {"n": 1})
        await asyncio.sleep(0.35)
        await layer.group_send("room", {"n": 2})
        assert await soon(layer, name) == {"n": 1}
        assert await nothing(layer, name)


async def test_living_members_are_refreshed(valkey: Server) -> None:
    async with opened(valkey.url, group_expiry=1) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        await asyncio.sleep(1.5)
        await layer.group_send("room", {"n": 1})
        assert await soon(layer, name) == {"n": 1}


# The life of channels


async def test_a_channel_lives_as_long_as_its_name(valkey: Server) -> None:
    async with opened(valkey.url, expiry=0.1) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        await asyncio.sleep(0.5)  # busy for five times `expiry`
        await layer.group_send("room", {"n": 1})
        assert await soon(layer, name) == {"n": 1}
        copy = str(name).encode().decode()
        del name
        gc.collect()
        await eventually(lambda: not valkey.client().exists("asgi:group:room"), "end")
        assert layer.receive_buffer == {}
        assert copy not in layer._mailboxes


async def test_a_copied_name_works(valkey: Server) -> None:
    async with opened(valkey.url, expiry=1) as layer:
        copy = (await layer.new_channel()).encode().decode()
        gc.collect()
        await layer.send(copy, {"n": 1})
        assert await soon(layer, copy) == {"n": 1}
        waiting = asyncio.create_task(soon(layer, copy))
        await asyncio.sleep(1.5)  # waiting keeps it alive
        await layer.send(copy, {"n": 2})
        assert await waiting == {"n": 2}


async def test_messages_for_nobody_are_counted(
    layer: RedisChannelLayer, other: RedisChannelLayer
) -> None:
    name = await layer.new_channel()
    await other.send(f"{name[:-16]}{'0' * 16}", {"n": 1})
    await other.send(name, {"n": 2})
    assert await soon(layer, name) == {"n": 2}
    assert layer.counters == {"for no channel of this process": 1}


# Flush and close


@pytest.mark.parametrize("prefix", ["asgi", "a*", "a[sx]", "a?\\"])
async def test_flush_takes_its_own_keys_alone(valkey: Server, prefix: str) -> None:
    client = valkey.client()
    strangers = {b"other", b"bsgi", b"axx", b"as", b"aXb"}
    strangers = {key for key in strangers if not key.startswith(prefix.encode())}
    for key in strangers:
        client.set(key, 1)
    async with opened(valkey.url, prefix=prefix) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        await layer.send(name, {"n": 1})
        await layer.send("worker", {"n": 1})
        client.zadd(f"{prefix}worker$inflight", {"left by the incumbent": 1})
        await layer.flush()
        assert set(kept(client)) == strangers
        for channel in name, "worker":
            assert await nothing(layer, channel)


async def test_flush_many_keys(layer: RedisChannelLayer, valkey: Server) -> None:
    client = valkey.client()
    client.mset({f"asgi{i}": i for i in range(5_000)})
    await layer.flush()
    assert kept(client) == []


async def test_flush_empties_the_mailboxes(layer: RedisChannelLayer) -> None:
    names = [await layer.new_channel() for _ in range(2)]
    for name in names:
        await layer.group_add("room", name)
    await layer.group_send("room", {"n": 1})
    assert await soon(layer, names[0]) == {"n": 1}  # the other's waits here now
    assert layer.receive_buffer == {names[1]: ({"n": 1},)}
    waiting = asyncio.create_task(soon(layer, names[0]))
    await layer.flush()
    assert layer.receive_buffer == {}
    await layer.group_send("room", {"n": 2})
    assert await nothing(layer, names[1])
    await layer.send(names[0], {"n": 3})
    assert await waiting == {"n": 3}


async def test_close_pools(layer: RedisChannelLayer, valkey: Server) -> None:
    name = await layer.new_channel()
    await layer.send(name, {"n": 1})
    assert await soon(layer, name) == {"n": 1}
    await layer.close_pools()
    await layer.close_pools()

    await eventually(lambda: not valkey.clients(), "the server to see them go")
    await layer.send(name, {"n": 2})
    assert await soon(layer, name) == {"n": 2}


async def test_close_pools_ends_no_receive(
    layer: RedisChannelLayer, channel: str
) -> None:
    waiting = asyncio.create_task(soon(layer, channel))
    await asyncio.sleep(0.05)
    await layer.close_pools()
    await layer.send(channel, {"n": 1})
    assert await waiting == {"n": 1}
    await end(waiting)


async def test_wait_received(layer: RedisChannelLayer) -> None:
    await asyncio.wait_for(layer.wait_received(), 1)


async def test_connection(layer: RedisChannelLayer) -> None:
    assert await layer.connection(0).ping()
    for index in -1, 1:
        with pytest.raises(ValueError, match=f"only 1 hosts - you asked for {index}"):
            layer.connection(index)
