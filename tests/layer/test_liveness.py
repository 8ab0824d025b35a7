"""Who lives is counted and sent to, who is dead is not, and what was lost is back."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import Any

import pytest
import redis

from channels_redis_fast._version import __version__
from channels_redis_fast.exceptions import NotSupported
from support.layers import opened, soon
from support.peers import CORE, Peer
from support.polling import eventually
from support.pretending import (
    ALIVE,
    INFOS,
    ROOM,
    age,
    beat,
    is_written_to,
    join,
    member,
    members,
    pretend,
    server_time,
)
from support.servers import Server
from support.syncing import KINDS


def beats(client: redis.Redis) -> set[bytes]:
    """The processes that are known."""
    return set(client.zrange(ALIVE, 0, -1)) - {b"!outage", b"!before"}


# Who is counted, and sent to


async def test_the_silent_are_not_counted_but_sent_to(valkey: Server) -> None:
    client = valkey.client()
    async with opened(valkey.url) as layer:
        ours = await member(layer)
        await beat(layer)
        living, silent = pretend(client, 14), pretend(client, 16)
        there = join(client, "room", living)
        join(client, "room", silent)
        await beat(layer)
        assert set(await layer.group_members("room")) == {ours, there}
        assert await layer.group_count("room") == 2
        found = {process.id for process in await layer.processes()}
        assert found == {layer.client_prefix, living}
        assert layer.stats()["processes"] == 2
        await layer.group_send("room", {"n": 1})
        assert is_written_to(client, living)
        assert is_written_to(client, silent)
        await layer._heartbeat.tend(layer._engine())
        assert len(members(client)) == 3


SENDS: dict[str, Any] = {
    "group_send": lambda layer: layer.group_send("room", {"n": 1}),
    "many": lambda layer: layer.group_send_many([("room", {"n": 1})]),
}


@pytest.mark.parametrize("confirm_sends", [True, False], ids=["confirmed", "not"])
@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
async def test_the_dead_are_not_sent_to(
    valkey: Server, send: Any, confirm_sends: bool
) -> None:
    """Their members are taken out."""
    client = valkey.client()
    async with opened(valkey.url, confirm_sends=confirm_sends) as layer:
        ours = await member(layer)
        await beat(layer)
        dead = pretend(client, 61)
        join(client, "room", dead, count=600)  # more than one portion
        await beat(layer)
        await send(layer)
        assert await soon(layer, ours) == {"n": 1}
        await layer.flush_sends()
        assert not is_written_to(client, dead)
        await layer._heartbeat.tend(layer._engine())
        assert members(client) == {ours}
        assert await layer.group_count("room") == 1


async def test_an_expiry_is_waited_for(valkey: Server) -> None:
    """What was sent to it may be there still."""
    client = valkey.client()
    async with opened(valkey.url, expiry=100) as layer:
        await beat(layer)
        process = pretend(client, 90)
        join(client, "room", process)
        await beat(layer)
        await layer.group_send("room", {})
        assert is_written_to(client, process)


async def test_who_came_back_is_not_taken_out(valkey: Server) -> None:
    """Not even by who has not heard of it."""
    client = valkey.client()
    async with opened(valkey.url) as layer:
        await beat(layer)
        dead = pretend(client, 61)
        old, new = (join(client, "room", dead, ago=ago) for ago in (300, 1))
        await beat(layer)
        await layer.group_send("room", {})
        await layer._heartbeat.tend(layer._engine())
        assert old not in members(client)
        assert new in members(client)
        age(client, dead, 1)
        await beat(layer)
        assert await layer.group_members("room") == [new]


async def test_the_unknown_count(valkey: Server) -> None:
    """As channels_redis, which says nothing."""
    client = valkey.client()
    async with opened(valkey.url) as layer:
        await beat(layer)
        pretend(client, 61)
        there = join(client, "room", "0" * 32)
        client.zadd(ROOM, {"normal": server_time(client)})
        await beat(layer)
        assert set(await layer.group_members("room")) == {there, "normal"}
        await layer.group_send("room", {})
        assert is_written_to(client, "0" * 32)


async def test_nobody_is_judged_by_what_is_old(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who missed beats himself, as while Redis is away, takes all for living."""
    client, now = valkey.client(), 0.0
    async with opened(valkey.url) as layer:
        await beat(layer)
        join(client, "room", pretend(client, 61))
        await beat(layer)
        census = layer._operations.liveness.census
        assert census.is_known(census._until - 0.1)
        monkeypatch.setattr(
            "channels_redis_fast.commands.operations.monotonic", lambda: now
        )
        now = census._until + 0.1
        request = layer._operations.members("room")
        names = client.zrange(ROOM, 0, -1)
        assert layer._operations.note_members(request, names) == names
        assert not census.removals


async def test_an_outage_makes_nobody_silent(valkey: Server) -> None:
    """Only those who were before; and all again when they had time to beat."""
    client = valkey.client()
    async with opened(valkey.url) as layer:
        await beat(layer)
        before, ours = pretend(client, 120), layer.client_prefix
        late = pretend(client, 42)
        for name in before, late:
            join(client, "room", name)
        age(client, ours, 40)  # an outage since then: nobody could beat
        await beat(layer)
        assert {one.id for one in await layer.processes()} == {late, ours}
        assert layer.stats()["processes"] == 2
        assert await layer.group_count("room") == 1
        age(client, "!outage", 10)
        await beat(layer)
        assert await layer.group_count("room") == 1
        age(client, "!outage", 21)
        await beat(layer)
        assert await layer.group_count("room") == 0
        assert [one.id for one in await layer.processes()] == [ours]
        assert layer.stats()["processes"] == 1


async def test_outages_one_after_another(valkey: Server) -> None:
    """Who had no time to beat between them is not judged by the first."""
    client = valkey.client()
    async with opened(valkey.url) as layer:
        await beat(layer)
        late = pretend(client, 60)
        join(client, "room", late)
        age(client, layer.client_prefix, 58)
        await beat(layer)  # after the first outage
        age(client, "!outage", 12)
        age(client, layer.client_prefix, 10)
        await beat(layer)  # after the second one
        assert await layer.group_count("room") == 1


async def test_a_server_with_a_slower_clock(valkey: Server) -> None:
    """As after a failover: entries from the future would never be silent."""
    client = valkey.client()
    async with opened(valkey.url) as layer:
        await beat(layer)
        pretend(client, -3600)
        await beat(layer)
        now = server_time(client)
        assert all(at <= now for _, at in client.zrange(ALIVE, 0, -1, withscores=True))


async def test_entries_are_dropped_with_memberships(valkey: Server) -> None:
    client = valkey.client()
    async with opened(valkey.url, group_expiry=200) as layer:
        await beat(layer)
        old, kept = pretend(client, 201), pretend(client, 199)
        await beat(layer)
        assert client.zscore(ALIVE, old) is None
        assert client.zscore(ALIVE, kept) is not None
        infos = {name.decode() for name in client.hkeys(INFOS)}
        assert infos == {layer.client_prefix, kept}
        assert 0 < client.ttl(ALIVE) <= 200
        assert 0 < client.ttl(INFOS) <= 200  # or it would stay for ever


# Beats


async def test_it_beats_by_the_clock(valkey: Server) -> None:
    """In one event loop or another, and is gone when the last one ends."""
    client = valkey.client()
    async with opened(valkey.url, liveness=0.6) as layer:
        await layer.group_send("room", {})

        def last() -> Any:
            return client.zscore(ALIVE, layer.client_prefix)

        first = await eventually(last, "a beat")
        await eventually(lambda: last() > first, "the next beat")
    assert not client.exists(ALIVE)
    assert not client.exists(INFOS)


async def test_who_ends_with_members_falls_silent(valkey: Server) -> None:
    """Until another event loop, or a call, beats again."""
    client = valkey.client()
    async with opened(valkey.url) as layer:
        name = await member(layer)
        await beat(layer)
        await layer.close_pools()
        assert beats(client) == {layer.client_prefix.encode()}
        layer._heartbeat._due = 0.0
        await asyncio.to_thread(layer.sync.processes)
        assert beats(client) == {f"~{layer.client_prefix}".encode()}
        await beat(layer)
        assert beats(client) == {layer.client_prefix.encode()}
        await layer.group_discard("room", name)
    assert not beats(client)


async def test_a_killed_process_is_gone(valkey: Server) -> None:
    """Whatever its clock said."""
    config = {"hosts": [valkey.url], "liveness": 0.6, "expiry": 1}
    async with opened(valkey.url, liveness=0.6, expiry=1) as layer:
        ours = await member(layer)
        async with Peer(CORE, config) as peer:
            await peer.clock(time.time() + 3600, 0.001)
            theirs = await peer.new_channel()
            await peer.group_add("room", theirs)
            await eventually(lambda: len(beats(valkey.client())) == 2, "its beat")
            peer.kill()
            for _ in range(200):
                if await layer.group_members("room") == [ours]:
                    break
                await asyncio.sleep(0.05)
            assert await layer.group_count("room") == 1
            assert [one.id for one in await layer.processes()] == [layer.client_prefix]


@pytest.mark.parametrize("kind", KINDS)
async def test_processes(valkey: Server, kind: str) -> None:
    """Both layers have them; what is none of ours is ignored, and counted."""
    client = valkey.client()
    async with opened(valkey.url, kind=kind) as layer:
        (ours,) = await layer.processes()
        assert ours.id == layer.client_prefix
        assert ours.pid == os.getpid()
        assert ours.host == socket.gethostname()
        assert ours.version == __version__
        assert abs(ours.last_beat - server_time(client)) < 5
        for wrong in b"", b"\xc1", b"\x01", b"\x81\xa3pid\xa1x", b"\x80":
            pretend(client, 1, info=wrong)
        client.zadd(ALIVE, {b"\xff\xfe": server_time(client)})
        other = pretend(client, 1)
        found = {one.id: one for one in await layer.processes()}
        assert found.keys() == {ours.id, other}
        assert found[other][1:4] == ("elsewhere", 7, "9.9")
        assert layer.counters["heartbeats that are not ours"] == 6


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_of_somebody_else(
    valkey: Server, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing but the heartbeat is disturbed."""
    valkey.client().set(ALIVE, "mine")
    async with opened(valkey.url, kind=kind) as layer:
        for _ in range(2):
            await beat(layer)
        await layer.send("worker", {"n": 1})
        assert await soon(layer, "worker") == {"n": 1}
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            await layer.processes()
    assert caplog.text.count("heartbeats are refused") == 1


@pytest.mark.parametrize("method", ["group_members", "group_count"])
@pytest.mark.parametrize("kind", KINDS)
async def test_wrong_names(valkey: Server, kind: str, method: str) -> None:
    async with opened(valkey.url, kind=kind) as layer:
        for wrong in "no group", "", None, b"room", "x" * 101:
            with pytest.raises(TypeError, match="Group name"):
                await getattr(layer, method)(wrong)


@pytest.mark.parametrize("method", ["group_members", "group_count"])
async def test_pubsub_knows_no_members(valkey: Server, method: str) -> None:
    async with opened(valkey.url, kind="pubsub") as layer:
        with pytest.raises(NotSupported, match=rf"{method}\('room'\): .*core"):
            await getattr(layer, method)("room")
        assert issubclass(NotSupported, RuntimeError)


# Callers without an event loop


@pytest.mark.parametrize("kind", KINDS)
def test_who_blocks_beats_when_it_calls(valkey: Server, kind: str) -> None:
    layer, client = KINDS[kind](hosts=[valkey.url], liveness=0.3), valkey.client()
    assert [one.id for one in layer.sync.processes()] == [layer.client_prefix]

    def last() -> Any:
        return client.zscore(ALIVE, f"~{layer.client_prefix}")

    first = last()
    layer._heartbeat._due = 0.0
    layer.sync.send("worker", {})
    assert last() > first
    layer.sync.close()


def test_members_of_who_blocks_stay(valkey: Server) -> None:
    """It may be silent for long, and live; what was lost comes back all the same."""
    layer, client = KINDS["core"](hosts=[valkey.url]), valkey.client()
    other = KINDS["core"](hosts=[valkey.url])
    name = layer.sync.new_channel()
    layer.sync.group_add("room", name)
    assert layer.sync.processes()
    age(client, f"~{layer.client_prefix}", 100)
    for _ in range(2):
        other._heartbeat._due = 0.0
        other.sync.group_send("room", {"n": 1})
    assert other.sync.group_members("room") == [name]
    assert other.sync.group_count("room") == 1
    assert layer.sync.receive(name, timeout=5) == {"n": 1}
    client.flushdb()
    layer._heartbeat._due = 0.0
    layer.sync.send("worker", {})
    assert members(client) == {name}
    for one in layer, other:
        one.sync.close()


def test_the_sync_methods_of_pubsub(valkey: Server) -> None:
    layer = KINDS["pubsub"](hosts=[valkey.url])
    with pytest.raises(NotSupported):
        layer.sync.group_members("room")
    with pytest.raises(NotSupported):
        layer.sync.group_count("room")


async def test_a_silent_server_holds_nobody_up_twice(server: Server) -> None:
    """Who asks before anything is known has one deadline."""
    async with opened(server.url, command_timeout=0.8) as layer:
        await layer.send("worker", {})
        server.pause()
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(redis.ConnectionError):
            await layer.group_count("room")
        assert loop.time() - began < 1.5
        server.resume()
