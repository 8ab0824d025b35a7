"""Pub/Sub channels: how much waits in them, who gets it, and when they end."""

from __future__ import annotations

import asyncio
import gc
import logging
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.consumer import AsyncConsumer
from channels.exceptions import ChannelFull, StopConsumer

from channels_redis_fast.pubsub import RedisPubSubChannelLayer as Layer
from channels_redis_fast.subscriptions.subscriber import Subscriber
from support.layers import end, nothing, persist, soon
from support.peers import CORE, PUBSUB
from support.polling import eventually
from support.pubsubs import published, subscribed, subscribers
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


# Bounds


async def test_capacity(valkey: Server, caplog: pytest.LogCaptureFixture) -> None:
    rules = {"asgismall.*": 2}
    async with published(valkey.url, capacity=3, channel_capacity=rules) as layer:
        expected = {await layer.new_channel(): 3, await layer.new_channel("small."): 2}
        for name in expected:
            await layer.group_add("room", name)
        with caplog.at_level(logging.WARNING, "channels_redis_fast"):
            for n in range(10):
                await layer.group_send("room", {"n": n})
            last = await layer.new_channel()
            await layer.send(last, {})
            await soon(layer, last)  # so all of those before have come
        for name, capacity in expected.items():
            got = [(await soon(layer, name))["n"] for _ in range(capacity)]
            assert got == list(range(10 - capacity, 10))
            assert await nothing(layer, name)
        dropped = "dropped, the consumer doesn't read"
        assert layer.counters == {dropped: 7 + 8}
        assert sum(dropped in line for line in caplog.messages) == 1


async def test_unread_messages_expire(valkey: Server) -> None:
    async with published(valkey.url, expiry=0.2) as layer:
        name = await layer.new_channel()
        for channel in name, "worker":
            await layer.send(channel, {"n": 1})
        await asyncio.sleep(0.25)
        for channel in name, "worker":
            await layer.send(channel, {"n": 2})
            assert await soon(layer, channel) == {"n": 2}
        assert layer.counters == {"expired before being read": 1}


async def test_normal_channels_have_core_s_capacity(valkey: Server) -> None:
    async with published(valkey.url, capacity=2) as layer:
        for _ in range(2):
            await layer.send("worker", {"n": 1})
        with pytest.raises(ChannelFull, match="worker"):
            await layer.send("worker", {"n": 1})


# Normal channels


async def test_normal_channels_are_core_s(
    layer: Layer, start_peer: Any, valkey: Server
) -> None:
    core = await start_peer(CORE, {"hosts": [valkey.url]})
    await layer.send("worker", {"n": 1})
    assert valkey.client().exists("asgiworker")
    assert await core.receive("worker", timeout=5) == {"n": 1}
    await core.send("worker", {"n": 2})
    assert await soon(layer, "worker") == {"n": 2}


async def test_one_reader_of_the_fleet_gets_a_message(
    layer: Layer, start_peer: Any, valkey: Server
) -> None:
    peers = [await start_peer(PUBSUB, {"hosts": [valkey.url]}) for _ in range(2)]
    readings = [p.begin("collect", "worker", timeout=20, idle=1.0) for p in peers]
    for n in range(300):
        await persist(layer, "worker", {"n": n, "from": "here"})
    got = [n for reading in readings for _, n in (await reading)["received"]]
    assert sorted(got) == list(range(300))


async def test_broadcast_reaches_all_readers(valkey: Server) -> None:
    options = {"normal_channels": "broadcast"}
    async with (
        published(valkey.url, **options) as one,
        published(valkey.url, **options) as two,
    ):
        waiting = [asyncio.create_task(soon(layer, "worker")) for layer in (one, two)]
        await eventually(lambda: subscribers(valkey, "worker") == 2, "both")
        await one.send("worker", {"n": 1})
        assert await asyncio.gather(*waiting) == [{"n": 1}] * 2
        assert kept(valkey.client()) == []


# The life of channels


async def test_a_channel_lives_as_long_as_its_name(valkey: Server) -> None:
    async with published(valkey.url, expiry=0.1) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        await asyncio.sleep(0.5)  # busy for five times `expiry`
        await layer.group_send("room", {"n": 1})
        assert await soon(layer, name) == {"n": 1}
        del name
        gc.collect()
        await eventually(lambda: not subscribed(valkey), "the subscriptions to end")
        assert len(layer._mailboxes) == len(layer._table) == 0


async def test_a_copied_name_works(valkey: Server) -> None:
    async with published(valkey.url, expiry=1) as layer:
        copy = (await layer.new_channel()).encode().decode()
        gc.collect()
        await layer.send(copy, {"n": 1})
        assert await soon(layer, copy) == {"n": 1}
        waiting = asyncio.create_task(soon(layer, copy))
        await asyncio.sleep(1.5)  # waiting keeps it alive
        await layer.send(copy, {"n": 2})
        assert await waiting == {"n": 2}
        await eventually(lambda: not subscribed(valkey), "the end")
        waiting = asyncio.create_task(soon(layer, copy))  # it begins anew
        await eventually(lambda: subscribed(valkey) == {copy}, "the subscription")
        await layer.send(copy, {"n": 3})
        assert await waiting == {"n": 3}


class Stopping(AsyncConsumer):  # type: ignore[misc]
    """Joins two groups, and ends when a message says so, without a farewell."""

    async def begin(self, message: dict[str, Any]) -> None:
        for group in "room", f"own{message['n']}":
            await self.channel_layer.group_add(group, self.channel_name)
        await self.send({"joined": message["n"]})

    async def stop(self, message: dict[str, Any]) -> None:
        raise StopConsumer


async def idle() -> None:
    """Does nothing."""


async def test_consumers_that_stopped_leave_nothing(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with published(valkey.url, expiry=0.2) as layer:
        monkeypatch.setattr("channels.consumer.get_channel_layer", lambda alias: layer)
        # There is no database.
        monkeypatch.setattr("channels.consumer.aclose_old_connections", idle)
        joined: list[int] = []

        async def serve(n: int) -> None:
            queue: asyncio.Queue[Any] = asyncio.Queue()
            queue.put_nowait({"type": "begin", "n": n})

            async def reply(message: dict[str, Any]) -> None:
                joined.append(message["joined"])

            await Stopping()({"type": "test"}, queue.get, reply)

        serving = [asyncio.create_task(serve(n)) for n in range(300)]
        await eventually(lambda: len(joined) == 300, "all to join")
        assert len(subscribed(valkey)) == 300 + 300 + 1
        await layer.group_send("room", {"type": "stop"})
        await asyncio.gather(*serving)
        gc.collect()
        await eventually(lambda: not subscribed(valkey), "all subscriptions to end")
        assert len(layer._mailboxes) == len(layer._table) == 0


@pytest.mark.parametrize("count", [300, pytest.param(1_000, marks=pytest.mark.slow)])
async def test_a_cancelled_receive_loses_nothing(
    start_peer: Any, valkey: Server, count: int
) -> None:
    reader, sender = [await start_peer(PUBSUB, {"hosts": [valkey.url]}) for _ in "12"]
    name = await reader.new_channel()
    reading = reader.begin("collect", name, count, timeout=20, impatience=0.002)
    sent = await sender.burst(name, count, senders=2, pause=0.002)
    assert len(sent["accepted"]) == count
    got = await reading
    assert sorted(n for _, n in got["received"]) == list(range(count))
    assert got["cancelled"] > count // 20


async def test_a_receive_cancelled_when_its_name_is_confirmed(
    layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In that very moment `asyncio.wait_for` swallows it, and `soon` waits for ever."""
    confirmed = Subscriber.subscribe

    async def subscribe(subscriber: Subscriber, name: bytes) -> None:
        await confirmed(subscriber, name)
        asyncio.get_running_loop().call_soon(receiving.cancel)

    name = f"{layer.prefix}specific.{uuid.uuid4().hex}"  # not subscribed yet
    monkeypatch.setattr(Subscriber, "subscribe", subscribe)
    receiving = asyncio.create_task(layer.receive(name))
    done, _ = await asyncio.wait([receiving], timeout=10)
    assert done == {receiving}
    assert receiving.cancelled()


async def test_a_message_outlives_who_was_to_get_it(layer: Layer) -> None:
    name = await layer.new_channel()
    for others in range(3):
        readings = [asyncio.create_task(layer.receive(name)) for _ in "12"]
        await asyncio.sleep(0)
        for n in range(2 + others):
            layer._mailboxes.put(None, [name], {"n": n}, None)
        await end(*readings)  # before they could look
        got = [(await soon(layer, name))["n"] for _ in range(2 + others)]
        assert got == list(range(2 + others))


async def test_memberships_that_end_are_not_remembered(valkey: Server) -> None:
    """Their terms would be, for as long as `group_expiry`."""
    options = {"refresh_groups": False, "expiry": 0.1}
    async with published(valkey.url, **options) as layer:
        kept = await layer.new_channel()
        await layer.group_add("room", kept)
        for n in range(20):
            name = await layer.new_channel()
            await layer.group_add("room", name)
            if n % 2:
                await layer.group_discard("room", name)
        del name
        await eventually(lambda: len(layer._mailboxes) == 1, "the others to end")
        assert len(layer._terms._began) == 1
