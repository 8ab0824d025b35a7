"""Leaving all groups at once, and groups that lose all their members."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.exceptions import ForeignChannel, InvalidName
from channels_redis_fast.runtime import engine, upkeep
from channels_redis_fast.wire.reserved import CLEAR, EXCLUDE
from support.crowds import BACK, lines
from support.fleets import TOPOLOGIES, Clock, Fleet
from support.layers import call, end, nothing, opened, soon
from support.peers import INCUMBENT_CORE
from support.polling import eventually
from support.pubsubs import GROUP, subscribed, subscribers
from support.servers import Server
from support.syncing import KINDS, blocking

WAYS = ("loop", "thread")
ROOM = "asgi:group:room"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done by the clock is done at once."""
    monkeypatch.setattr(engine, "_LONGEST_TICK", 0.02)
    monkeypatch.setattr(upkeep, "_RETRY_AFTER", 0.02)


async def in_groups(layer: Any, count: int, *groups: str) -> list[str]:
    """Names of new members."""
    names = [await layer.new_channel() for _ in range(count)]
    for name in names:
        for group in groups or ("room",):
            await layer.group_add(group, name)
    return names


def members(server: Server, key: str = ROOM) -> set[str]:
    return {name.decode() for name in server.client().zrange(key, 0, -1)}


# Everywhere


@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_on_every_topology(
    kind: str, topology: str, request: pytest.FixtureRequest
) -> None:
    """With groups on all shards or nodes, and members in two processes."""
    groups = [f"room{n}" for n in range(8)]
    with TOPOLOGIES[topology](request.getfixturevalue) as there:
        fleet = Fleet(kind, there, Clock(), prefix=f"clear-{kind}")
        one, other = fleet.layers
        try:
            (ours, mine) = await in_groups(one, 2, *groups)
            (theirs,) = await in_groups(other, 1, *groups)
            assert await one.group_discard_all(ours) == 8
            assert await one.group_discard_all(ours) == 0
            await one.group_send(groups[0], {"n": 0}, exclude=mine)
            assert await soon(other, theirs) == {"n": 0}
            for group in groups:
                await other.group_clear(group)
                await one.group_send(group, {"group": group})
            await one.group_add(groups[0], mine)
            await other.group_send(groups[0], {"n": 1})
            assert await soon(one, mine) == {"n": 1}
            assert await nothing(one, ours)
            assert await nothing(other, theirs)
            async with one.listen(*groups) as messages:
                await other.group_send(groups[7], {"n": 2})
                assert await anext(messages) == {"n": 2}
        finally:
            await fleet.aclose()


# group_discard_all


@pytest.mark.parametrize("way", WAYS)
async def test_discard_all(kind: str, way: str, valkey: Server) -> None:
    async with opened(valkey.url, kind=kind) as layer:
        leaving, staying = await in_groups(layer, 2, "a", "b", "c")
        await layer.group_discard("b", leaving)
        discard = layer.sync.group_discard_all if way == "thread" else None
        left = await (
            asyncio.to_thread(discard, leaving)
            if discard
            else layer.group_discard_all(leaving)
        )
        assert left == 2
        for group in ("a", "b", "c"):
            await layer.group_send(group, {"type": group})
            assert await soon(layer, staying) == {"type": group}
        assert await nothing(layer, leaving)
        await layer.group_add("a", leaving)
        assert await layer.group_discard_all(leaving) == 1


async def test_discard_all_counts_what_was_there(valkey: Server) -> None:
    """Not what others took it out of."""
    async with opened(valkey.url) as layer, opened(valkey.url) as other:
        (name,) = await in_groups(layer, 1, "a", "b")
        await other.group_discard("a", name)
        assert await layer.group_discard_all(name) == 1
        assert not valkey.client().keys("asgi:group:*")


async def test_discard_all_is_forgotten(server: Server) -> None:
    """What was left is not put back when Redis loses its data."""
    async with opened(server.url) as layer:
        leaving, staying = await in_groups(layer, 2)
        await layer.group_discard_all(leaving)
        server.restart(empty=True)
        await eventually(lambda: members(server) == {staying}, "the member")


async def test_channels_of_others(kind: str, valkey: Server) -> None:
    async with (
        opened(valkey.url, kind=kind) as layer,
        opened(valkey.url, kind=kind) as other,
    ):
        (name,) = await in_groups(other, 1)
        for foreign in (name, "worker"):
            with pytest.raises(ForeignChannel, match=foreign):
                await layer.group_discard_all(foreign)
            with pytest.raises(ForeignChannel):
                await asyncio.to_thread(layer.sync.group_discard_all, foreign)
        await layer.group_send("room", {"n": 1})
        assert await soon(other, name) == {"n": 1}


@pytest.mark.parametrize("bad", [None, 5, b"room", "", "a b"])
async def test_bad_names(kind: str, bad: Any, valkey: Server) -> None:
    async with opened(valkey.url, kind=kind) as layer:
        for method in ("group_discard_all", "group_clear"):
            with pytest.raises(InvalidName, match="name must be") as raised:
                await getattr(layer, method)(bad)
            assert repr(bad) in str(raised.value)


async def test_without_a_server(kind: str) -> None:
    """The caller hears of it, and members stay what they were."""
    with Server() as server:
        async with opened(server.url, kind=kind) as layer:
            (name,) = await in_groups(layer, 1)
            server.kill()
            with pytest.raises(errors.ConnectionError):
                await layer.group_clear("room")
            if kind == "core":
                with pytest.raises(errors.ConnectionError):
                    await layer.group_discard_all(name)
                assert layer._memberships.groups_of == {name: {"room"}}


# group_clear


@pytest.mark.parametrize("way", WAYS)
async def test_clear(kind: str, way: str, valkey: Server) -> None:
    """All members go, and may join again at once."""
    async with (
        opened(valkey.url, kind=kind) as one,
        opened(valkey.url, kind=kind) as other,
    ):
        ours = await in_groups(one, 2, "room", "other")
        theirs = await in_groups(other, 2, "room", "other")
        await call(one, way, "group_clear", "room")
        await one.group_add("room", ours[0])
        if kind == "pubsub":
            name = "asgi__group__room"
            await eventually(lambda: subscribers(valkey, name) == 1, "them to leave")
        await other.group_send("room", {"n": 1})
        await one.group_send("other", {"n": 2})
        assert await soon(one, ours[0]) == {"n": 1}
        for layer, names in ((one, ours), (other, theirs)):
            assert [await soon(layer, name) for name in names] == [{"n": 2}] * 2
        assert one.counters == other.counters == {}


async def test_in_its_order(valkey: Server) -> None:
    """What one process publishes before reaches the members, and what after doesn't."""
    async with (
        opened(valkey.url, kind="pubsub") as one,
        opened(valkey.url, kind="pubsub") as other,
    ):
        (name,) = await in_groups(other, 1)
        for n in range(3):
            await one.group_send("room", {"n": n})
        await one.group_clear("room")
        await one.group_send("room", {"n": 3})
        assert [(await soon(other, name))["n"] for _ in range(3)] == [0, 1, 2]
        assert await nothing(other, name)
        await eventually(lambda: subscribed(valkey) == {name}, "it to unsubscribe")


async def test_a_notice_of_its_own_comes_too_late(valkey: Server) -> None:
    """Its members left when the call returned, and may have joined since."""
    async with opened(valkey.url, kind="pubsub") as layer:
        (name,) = await in_groups(layer, 1)
        own, other = ({EXCLUDE: [], CLEAR: who} for who in (layer._origin, "another"))
        valkey.client().publish(GROUP, layer.serialize(own))
        await layer.group_send("room", {"n": 1})
        valkey.client().publish(GROUP, layer.serialize(other))
        await layer.group_send("room", {"n": 2})
        assert await soon(layer, name) == {"n": 1}
        assert await nothing(layer, name)


async def test_only_groups_are_cleared(valkey: Server) -> None:
    """A notice that somebody publishes elsewhere leaves no channel deaf."""
    async with opened(valkey.url, kind="pubsub") as layer:
        name = await layer.new_channel()
        notice = layer.serialize({EXCLUDE: [], CLEAR: "somebody"})
        assert valkey.client().publish(name, notice) == 1
        await layer.send(name, {"n": 1})
        assert await soon(layer, name) == {"n": 1}
        assert subscribers(valkey, name) == 1
        assert layer.counters == {}


@pytest.mark.parametrize("way", WAYS)
async def test_cleared_stay_gone(
    server: Server, caplog: pytest.LogCaptureFixture, way: str, quick: None
) -> None:
    """Owners are told, so nobody puts them back; who joined since comes back."""
    async with opened(server.url) as one, opened(server.url) as other:
        await in_groups(one, 2)
        theirs = await in_groups(other, 3)
        reading = asyncio.create_task(soon(other, theirs[0], 60))
        await eventually(lambda: not other._mailboxes.owners.orphans(), "a reader")
        await call(one, way, "group_clear", "room")
        await other.group_add("room", theirs[2])
        expected = [{}, {theirs[2]: {"room"}}]
        await eventually(
            lambda: (
                [one._memberships.groups_of, other._memberships.groups_of] == expected
            ),
            "both to know",
        )
        server.restart(empty=True)
        await eventually(lambda: lines(caplog)[BACK] == 2, "the log lines")
        assert members(server) == {theirs[2]}
        await end(reading)


def test_cleared_stay_gone_without_a_loop(server: Server) -> None:
    """A process whose calls all block looks at its next call."""
    with blocking("core", server.url) as layer:
        name = layer.sync.new_channel()
        layer.sync.group_add("room", name)
        layer.sync.group_clear("room")
        assert layer._memberships.groups_of == {name: {"room"}}
        layer.sync.send(name, {"n": 1})
        assert layer._memberships.groups_of == {}


def test_a_thread_that_reads_is_told(valkey: Server) -> None:
    with blocking("core", valkey.url) as layer, blocking("core", valkey.url) as other:
        name = layer.sync.new_channel()
        layer.sync.group_add("room", name)
        other.sync.group_clear("room")
        other.sync.send(name, {"n": 1})
        assert layer.sync.receive(name, 10) == {"n": 1}
        layer.sync.send("worker", {})
        assert layer._memberships.groups_of == {}


async def test_full_processes_are_told(valkey: Server, quick: None) -> None:
    """Their key takes the notice whatever their capacity."""
    async with opened(valkey.url, capacity=1) as layer, opened(valkey.url) as other:
        (name,) = await in_groups(layer, 1)
        await other.send(name, {"n": 1})
        await other.group_clear("room")
        assert await soon(layer, name) == {"n": 1}
        receiving = asyncio.create_task(soon(layer, name, 60))
        await eventually(lambda: not layer._memberships.groups_of, "it to know")
        await end(receiving)


async def test_a_look_that_fails_is_repeated(server: Server, quick: None) -> None:
    async with opened(server.url) as layer:
        (name,) = await in_groups(layer, 1)
        client = server.client()
        client.delete(ROOM)
        client.set(ROOM, "no group")
        layer._memberships.clearing.note("room")
        await eventually(lambda: layer._memberships.clearing._not_before, "a look")
        assert layer._memberships.groups_of == {name: {"room"}}
        client.delete(ROOM)
        await eventually(lambda: not layer._memberships.groups_of, "another look")


async def test_members_that_are_no_process(valkey: Server) -> None:
    """Readers of normal channels get no notice, and odd names do no harm."""
    async with opened(valkey.url) as layer:
        await layer.group_add("room", "worker")
        valkey.client().zadd(ROOM, {b"\xff\xfe!odd": 1, b"": 1, b"gone!a": 1})
        await layer.group_clear("room")
        assert not members(valkey)
        assert await nothing(layer, "worker")


@pytest.mark.slow
async def test_channels_redis_knows_nothing_of_it(
    start_peer: Any, valkey: Server
) -> None:
    """Its members are taken out; the notice reaches none of its channels."""
    peer = await start_peer(INCUMBENT_CORE, {"hosts": [valkey.url]})
    name = await peer.new_channel()
    await peer.group_add("room", name)
    reading = peer.begin("receive", name)
    async with opened(valkey.url) as layer:
        await layer.group_clear("room")
        await layer.group_send("room", {"n": 1})
        await layer.send(name, {"n": 2})
        assert await reading == {"n": 2}


async def test_notices_of_others_are_no_orders(valkey: Server, quick: None) -> None:
    """Whatever stands in one, nobody is forgotten who is there."""
    async with opened(valkey.url) as layer:
        (name,) = await in_groups(layer, 1)
        codec, key = layer._operations.codec, f"asgi{name[: name.index('!') + 1]}"
        for value in ("room", 5, ["room"], None):
            body = codec.body({CLEAR: value})
            member = codec.seal_list(body, [], key.encode())
            valkey.client().zadd(key, {member: 1})
        await layer.send(name, {"n": 1})
        assert await soon(layer, name) == {"n": 1}
        await eventually(lambda: not layer._memberships.clearing._groups, "a look")
        assert layer._memberships.groups_of == {name: {"room"}}
