"""Messages to a group but for some channels, and what `group_send` says it reached."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channels_redis_fast.exceptions import InvalidMessage
from channels_redis_fast.types import SendResult
from channels_redis_fast.wire.reserved import EXCLUDE
from support.clusters import Cluster
from support.layers import FORMATS, nothing, opened, soon
from support.peers import INCUMBENT_CORE, INCUMBENT_PUBSUB
from support.polling import eventually
from support.programs import UNSHARDED
from support.pubsubs import GROUP, published, subscribers
from support.servers import Server
from support.syncing import KINDS

NESTED = {"type": "chat", "data": {"a": [1, {"b": 2}]}}
FLAT = {"type": "chat", "text": "hello"}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def in_room(layer: Any, count: int) -> list[str]:
    """Names of new members."""
    names = [await layer.new_channel() for _ in range(count)]
    for name in names:
        await layer.group_add("room", name)
    return names


def reached(kind: str, members: int, processes: int) -> SendResult:
    return SendResult(members if kind == "core" else None, processes, 0)


@pytest.mark.parametrize("message", [FLAT, NESTED], ids=["flat", "nested"])
@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
async def test_all_but_some(
    kind: str, options: dict[str, Any], message: Any, valkey: Server
) -> None:
    """In the sender's own process and in another one, each its own copy."""
    async with (
        opened(valkey.url, kind=kind, **options) as one,
        opened(valkey.url, kind=kind, **options) as other,
    ):
        ours, theirs = await in_room(one, 3), await in_room(other, 2)
        result = await one.group_send("room", message, exclude=[ours[0], theirs[0]])
        assert result == reached(kind, 3, 2)
        got = [await soon(one, name) for name in ours[1:]]
        assert [*got, await soon(other, theirs[1])] == [message] * 3
        got[0]["type"] = "changed"
        assert got[1]["type"] == "chat"
        assert await nothing(one, ours[0])
        assert await nothing(other, theirs[0])
        assert one.counters == other.counters == {}


@pytest.mark.parametrize("way", ["one", "list", "iterator", "all", "stranger"])
async def test_ways_to_say_whom(kind: str, way: str, valkey: Server) -> None:
    async with opened(valkey.url, kind=kind) as layer:
        names = await in_room(layer, 2)
        stranger = await layer.new_channel()
        exclude: Any = {
            "one": names[0],
            "list": [names[0], names[0]],
            "iterator": iter(names[:1]),
            "all": names,
            "stranger": {stranger},
        }[way]
        out = {"all": 2, "stranger": 0}.get(way, 1)
        result = await layer.group_send("room", NESTED, exclude=exclude)
        alone = kind == "pubsub" or out < 2
        assert result == reached(kind, 2 - out, int(alone))
        for name in names[:out]:
            assert await nothing(layer, name)
        for name in names[out:]:
            assert await soon(layer, name) == NESTED


async def test_nobody_is_excluded(valkey: Server) -> None:
    """Then channels_redis gets what it always got."""
    async with opened(valkey.url, kind="pubsub") as layer:
        listening = valkey.client().pubsub()
        listening.subscribe(GROUP)
        assert listening.get_message(timeout=10)["type"] == "subscribe"
        for exclude in ((), [], iter(())):
            await layer.group_send("room", FLAT, exclude=exclude)
            payload = listening.get_message(timeout=10)["data"]
            assert layer.deserialize(payload) == FLAT
        listening.close()


async def test_from_a_thread(kind: str, valkey: Server) -> None:
    async with opened(valkey.url, kind=kind) as layer:
        first, second = await in_room(layer, 2)

        def send() -> SendResult:
            result: SendResult = layer.sync.group_send("room", FLAT, exclude=first)
            return result

        assert await asyncio.to_thread(send) == reached(kind, 1, 1)
        assert await soon(layer, second) == FLAT
        assert await nothing(layer, first)


async def test_sends_that_nobody_waits_for(kind: str, valkey: Server) -> None:
    async with opened(valkey.url, kind=kind, confirm_sends=False) as layer:
        first, second = await in_room(layer, 2)
        assert await layer.group_send("room", NESTED, exclude=[first]) is None
        assert await soon(layer, second) == NESTED
        await layer.flush_sends()
        assert await nothing(layer, first)


async def test_nobody_there(kind: str, valkey: Server) -> None:
    async with opened(valkey.url, kind=kind) as layer:
        assert await layer.group_send("room", FLAT) == reached(kind, 0, 0)


async def test_full_processes_are_counted(valkey: Server) -> None:
    async with opened(valkey.url, capacity=1) as layer:
        (name,) = await in_room(layer, 1)
        await layer.group_add("room", "worker")
        await layer.send("worker", FLAT)
        assert await layer.group_send("room", FLAT) == (2, 2, 1)
        assert await soon(layer, name) == FLAT


@pytest.mark.skipif(bool(UNSHARDED), reason=str(UNSHARDED))
@pytest.mark.parametrize("sharded", [True, False])
async def test_a_cluster_counts_only_sharded(cluster: Cluster, sharded: bool) -> None:
    """Each node knows of its own subscribers only."""
    async with published(cluster.host, sharded_pubsub=sharded) as layer:
        (name,) = await in_room(layer, 1)
        result = await layer.group_send("room", FLAT)
        assert result == SendResult(None, 1 if sharded else None, 0)
        assert await soon(layer, name) == FLAT


@pytest.mark.parametrize("bad", [None, 5, b"name", "", "a b", ["a b"], [None], [[]]])
async def test_what_is_no_channel(kind: str, bad: Any, valkey: Server) -> None:
    """It is said at the call, which sends nothing."""
    async with opened(valkey.url, kind=kind) as layer:
        (name,) = await in_room(layer, 1)
        value = bad[0] if isinstance(bad, list) else bad
        with pytest.raises(TypeError) as raised:
            await layer.group_send("room", FLAT, exclude=bad)
        assert repr(value) in str(raised.value)
        assert await nothing(layer, name)


async def test_the_key_is_reserved(valkey: Server) -> None:
    """Nobody silences others by the content of a message."""
    async with opened(valkey.url, kind="pubsub") as layer:
        (name,) = await in_room(layer, 1)
        message = {**FLAT, EXCLUDE: [name]}
        with pytest.raises(InvalidMessage, match=EXCLUDE):
            await layer.group_send("room", message)
        with pytest.raises(InvalidMessage, match=EXCLUDE):
            await layer.group_send("room", message, exclude=name)
        (outcome,) = await layer.group_send_many([("room", message)])
        assert isinstance(outcome, InvalidMessage)


@pytest.mark.parametrize("value", [b"\x05", b"\x91\x05", b"\x80"])
async def test_what_others_publish(value: bytes, valkey: Server) -> None:
    """Names that are none make a message unreadable, and harm nobody."""
    async with opened(valkey.url, kind="pubsub") as layer:
        (name,) = await in_room(layer, 1)
        payload = b"\x81\xb0" + EXCLUDE.encode() + value
        assert valkey.client().publish(GROUP, payload) == 1
        assert await nothing(layer, name)
        assert layer.counters == {"unreadable": 1}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_members_of_channels_redis(
    kind: str, start_peer: Any, valkey: Server
) -> None:
    """By core they can be excluded; what is published, they get with the entry."""
    incumbent = {"core": INCUMBENT_CORE, "pubsub": INCUMBENT_PUBSUB}[kind]
    peer = await start_peer(incumbent, {"hosts": [valkey.url]})
    name, member = await peer.new_channel(), await peer.new_channel()
    for one in (name, member):
        await peer.group_add("room", one)
    async with opened(valkey.url, kind=kind) as layer:
        if kind == "pubsub":  # its group_add returns before Redis has it
            await eventually(lambda: subscribers(valkey, GROUP), "a subscription")
        await layer.group_send("room", FLAT, exclude=name)
        left = {} if kind == "core" else {EXCLUDE: [name]}
        assert await peer.receive(member) == {**FLAT, **left}
        if kind == "pubsub":
            assert await peer.receive(name) == {**FLAT, **left}
