"""`layer.stats()`: what was sent and received, and what there is, in this process."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from channels.exceptions import ChannelFull
from redis import exceptions as errors

from support.forking import in_child, needs_fork
from support.layers import opened, soon, unconfirmed
from support.polling import eventually
from support.servers import Server
from support.syncing import KINDS, blocking

KIND = pytest.mark.parametrize("kind", KINDS)


def only(layer: Any) -> Any:
    """What it tells of its one host."""
    (found,) = layer.stats()["hosts"].values()
    return found


def timed(layer: Any) -> int:
    """How many of its round trips were."""
    return sum(only(layer)["roundtrips"]["counts"])


@KIND
async def test_messages_are_counted(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind) as layer:
        names = [await layer.new_channel() for _ in range(3)]
        for name in names:
            await layer.group_add("room", name)
        await layer.send(names[0], {"n": 1})
        await layer.send_many([(names[0], {"n": 2}), (names[1], {"n": 3})])
        await layer.group_send("room", {"n": 4})
        await layer.group_send_many([("room", {"n": 5}), ("room", {"n": 6})])
        for name, count in zip(names, (5, 4, 3), strict=True):
            for _ in range(count):
                await soon(layer, name)
        await layer.send("normal", {"n": 7})
        assert await soon(layer, "normal") == {"n": 7}

        stats = layer.stats()
        assert stats["sent"] == {"channel": 4, "group": 3}
        assert stats["received"] == 7
        assert stats["delivered"] == 3 + 3 * 3 + 1
        assert stats["full"] == {"channel": 0, "group": 0}
        assert stats["dropped"] == {}
        assert (stats["mailboxes"], stats["memberships"]) == (3, 3)
        assert stats["subscriptions"] == (4 if kind == "pubsub" else 0)
        json.dumps(stats)  # as it goes to other programs


async def nothing_more(layer: Any, name: str) -> None:
    """Waits until all that was sent to a channel before has come."""
    await layer.send(name, {"last": True})
    while "last" not in await soon(layer, name):
        pass


@KIND
async def test_those_left_out_are_not_counted(valkey: Server, kind: str) -> None:
    """Nor what tells processes that a group was cleared."""
    async with opened(valkey.url, kind=kind, expiry=2) as layer:  # short ticks
        names = [await layer.new_channel() for _ in range(3)]
        for name in names:
            await layer.group_add("room", name)
        await layer.group_send("room", {}, exclude=names[0])
        await nothing_more(layer, names[1])
        assert (layer.stats()["received"], layer.stats()["delivered"]) == (2, 3)
        await layer.group_send("room", {}, exclude=names)
        await layer.group_clear("room")
        await eventually(lambda: layer.stats()["memberships"] == 0, "the clearing")
        await nothing_more(layer, names[0])
        stats = layer.stats()
        assert stats["sent"] == {"channel": 2, "group": 2}
        assert (stats["received"], stats["delivered"]) == (3, 4)
        assert stats["dropped"] == {}


@KIND
async def test_messages_for_channels_that_ended(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind) as layer:
        names = [await layer.new_channel() for _ in range(2)]
        for name in names:
            await layer.group_add("room", name)
        layer._mailboxes.end(str(names[0]))
        if kind == "core":
            await layer.group_add("room", str(names[0]))
        await layer.group_send("room", {})
        await soon(layer, names[1])
        stats = layer.stats()
        assert (stats["received"], stats["delivered"]) == (1, 1)


@KIND
async def test_others_hear_them(valkey: Server, kind: str) -> None:
    """By the heartbeat."""
    async with opened(valkey.url, kind=kind) as layer:
        await layer.send("normal", {})
        (process,) = await layer.processes()
        assert process.stats["sent"] == {"channel": 1, "group": 0}


@KIND
async def test_unread_messages_are_counted(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind) as layer:
        first, second = [await layer.new_channel() for _ in range(2)]
        reading = asyncio.create_task(layer.receive(second))
        for _ in range(3):
            await layer.send(first, {})
        await eventually(lambda: layer.stats()["waiting"] == 3, "messages to come")
        await layer.send(second, {})
        await reading
        assert layer.stats()["waiting"] == 3


async def test_full_channels_and_members_are_counted(valkey: Server) -> None:
    async with opened(valkey.url, capacity=1) as layer:
        await layer.send("normal", {})
        with pytest.raises(ChannelFull):
            await layer.send("normal", {})
        await layer.send_many([("normal", {})])
        await layer.group_add("room", "specific.elsewhere!a")
        await layer.group_send("room", {})
        await layer.group_send("room", {})
        stats = layer.stats()
    assert stats["full"] == {"channel": 2, "group": 1}
    assert stats["sent"] == {"channel": 1, "group": 2}


@KIND
async def test_what_nobody_waits_for_is_counted(valkey: Server, kind: str) -> None:
    async with unconfirmed(kind, valkey.url) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        await layer.send(name, {})
        await layer.group_send("room", {})
        for _ in range(2):
            await soon(layer, name)
        assert layer.stats()["sent"] == {"channel": 1, "group": 1}


@pytest.fixture
def quick_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round trips are timed at each tick, of which `expiry` makes many."""
    monkeypatch.setattr("channels_redis_fast.client.shard_commands._TIME_EVERY", 0.0)


@KIND
@pytest.mark.usefixtures("quick_timing")
async def test_roundtrips(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, expiry=0.1) as layer:
        assert only(layer)["state"] == "unused"
        await layer.send("normal", {})
        assert only(layer)["state"] == "up"
        await eventually(lambda: timed(layer) == 1, "a round trip")
        trips = only(layer)["roundtrips"]
        assert len(trips["counts"]) == len(trips["bounds"]) + 1
        assert 0 < trips["sum"] < 60
        await layer.send("normal", {})
        await eventually(lambda: timed(layer) == 2, "another one")


@pytest.mark.usefixtures("quick_timing")
async def test_who_does_nothing_asks_nothing(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels_redis_fast.runtime.heartbeat._FIRST", 600)
    async with opened(valkey.url, expiry=0.1, liveness=600) as layer:
        await layer.send("normal", {})
        await eventually(lambda: timed(layer) == 1, "a round trip")
        engine, ticks = layer._loops.engine(), []
        engine.on_tick.append(lambda: ticks.append(timed(layer)))
        await eventually(lambda: len(ticks) > 5, "some ticks")
        assert set(ticks) == {1}


async def test_unanswered_commands(server: Server) -> None:
    async with opened(server.url, command_timeout=5) as layer:
        await layer.send("normal", {})
        server.pause()
        sends = [asyncio.create_task(layer.send("normal", {})) for _ in range(3)]
        await eventually(lambda: only(layer)["unanswered"] == 3, "three to be sent")
        first = only(layer)["oldest_unanswered"]
        assert only(layer)["oldest_unanswered"] > first > 0
        server.resume()
        await asyncio.gather(*sends)
        await eventually(lambda: only(layer)["unanswered"] == 0, "all answers")
        assert only(layer)["oldest_unanswered"] == 0.0


@KIND
async def test_the_state_of_a_host(server: Server, kind: str) -> None:
    async with opened(server.url, kind=kind) as layer:
        await layer.send("normal", {})
        server.kill()
        await eventually(lambda: only(layer)["state"] == "down", "the loss")
        waiting = asyncio.create_task(layer.send("normal", {}))
        await eventually(lambda: only(layer)["unanswered"] or waiting.done(), "a call")
        server.start()
        await eventually(lambda: only(layer)["state"] == "up", "its return")
        assert only(layer)["reconnects"] >= 1
        await asyncio.gather(waiting, return_exceptions=True)


def test_the_state_of_a_host_that_threads_use(server: Server) -> None:
    with blocking("core", server.url, command_timeout=0.5) as layer:
        assert only(layer)["state"] == "unused"
        layer.sync.send("normal", {})
        assert only(layer)["state"] == "up"
        server.kill()
        with pytest.raises(errors.ConnectionError):
            layer.sync.send("normal", {})
        assert layer.sync.stats()["hosts"] == layer.stats()["hosts"]
        assert only(layer)["state"] == "down"
        server.start()
        layer.sync.send("normal", {})
        assert only(layer)["state"] == "up"


@KIND
def test_threads_and_loops_add_up(valkey: Server, kind: str) -> None:
    """Also those that have ended."""
    with blocking(kind, valkey.url, capacity=10_000) as layer:

        def send(number: int) -> None:
            if number % 2:
                asyncio.run(layer.send_many([("normal", {})] * 5))
            else:
                for _ in range(5):
                    layer.sync.send("normal", {})

        for _ in range(2):
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(send, range(20)))
        assert layer.stats()["sent"]["channel"] == 200
        for _ in range(10):
            layer.sync.receive("normal")
        stats = layer.stats()
        assert (stats["received"], stats["delivered"]) == (10, 10)


@needs_fork
@KIND
async def test_a_child_begins_at_zero(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, expiry=0.1) as layer:
        await layer.send("normal", {})
        layer._counters.count("unreadable", "a test")

        def child() -> bytes:
            before = layer.stats()
            layer.sync.send("normal", {})
            after = layer.stats()
            layer.sync.close()
            return json.dumps((before, after)).encode()

        before, after = json.loads(in_child(child))
        assert before["sent"]["channel"] == 0
        assert before["dropped"] == {}
        (host,) = before["hosts"].values()
        assert host["state"] == "unused"
        assert after["sent"]["channel"] == 1
        assert layer.stats()["sent"]["channel"] == 1


async def test_hosts_are_named_without_credentials(valkey: Server) -> None:
    url = valkey.url.replace("://", "://default:@")
    async with opened({"address": url, "password": None}, valkey.url) as layer:
        place = f"{valkey.host}:{valkey.port}"
        assert all("default" not in name for name in layer.stats()["hosts"])
        assert len(layer.stats()["hosts"]) == 2
        assert all(place in name for name in layer.stats()["hosts"])
