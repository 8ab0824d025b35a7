"""What docs/security.md says of encryption, of its limits, and of changing its keys."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from typing import Any

import msgpack
import pytest

from channels_redis_fast.exceptions import UnreadableMessage
from channels_redis_fast.wire import _envelope
from channels_redis_fast.wire._aead import AesGcmFrames
from channels_redis_fast.wire._framing import FernetFrames
from support.layers import nothing, opened, soon
from support.pubsubs import published
from support.servers import Server, kept

Opener = Callable[..., AbstractAsyncContextManager[Any]]

ENCRYPTIONS = ["fernet", "aes-gcm"]
UNIQUE = 12  # random_prefix_length

# The four settings of symmetric_encryption_keys that a rotation goes through.
ROTATION = [["old"], ["old", "new"], ["new", "old"], ["new"]]


@pytest.fixture(params=[opened, published], ids=["core", "pubsub"])
def opener(request: pytest.FixtureRequest) -> Opener:
    """Opens layers of either kind."""
    found: Opener = request.param
    return found


async def understand(one: Any, other: Any) -> None:
    """Messages arrive both ways, by every road."""
    for sender, reader in (one, other), (other, one):
        name = await reader.new_channel()
        await reader.group_add("room", name)
        await sender.send(name, {"n": 1})
        await sender.group_send("room", {"n": 2})
        assert [await soon(reader, name) for _ in range(2)] == [{"n": 1}, {"n": 2}]
        await reader.group_discard("room", name)
        await sender.send("worker", {"n": 3})
        assert await soon(reader, "worker") == {"n": 3}
        assert reader.counters == {}


@pytest.mark.parametrize("encryption", ENCRYPTIONS)
@pytest.mark.parametrize("step", [*pairwise(ROTATION)], ids=["add", "swap", "remove"])
async def test_each_step_of_a_rotation(
    valkey: Server, opener: Opener, encryption: str, step: tuple[list[str], list[str]]
) -> None:
    """While it is rolled out, processes before and after it understand each other."""
    before, after = (
        {"symmetric_encryption_keys": keys, "encryption": encryption} for keys in step
    )
    async with opener(valkey.url, **before) as one, opener(valkey.url, **after) as two:
        await understand(one, two)
        # What waits in Redis outlives the process that sent it.
        await one.send("worker", {"n": 4})
    async with opener(valkey.url, **after) as two:
        assert await soon(two, "worker") == {"n": 4}


@pytest.mark.parametrize("encryption", ENCRYPTIONS)
async def test_no_step_may_be_left_out(
    valkey: Server, opener: Opener, encryption: str
) -> None:
    """Processes that don't know the new key yet drop what it encrypts."""
    old, new = (
        {"symmetric_encryption_keys": keys, "encryption": encryption}
        for keys in (ROTATION[0], ROTATION[2])
    )
    async with opener(valkey.url, **old) as one, opener(valkey.url, **new) as two:
        name = await one.new_channel()
        await two.send(name, {"n": 1})
        assert await nothing(one, name)
        assert one.counters == {"unreadable": 1}


async def test_a_fleet_changes_its_encryption(valkey: Server, opener: Opener) -> None:
    keys = {"symmetric_encryption_keys": ["secret"]}
    async with (
        opener(valkey.url, **keys) as one,
        opener(valkey.url, **keys, encryption="aes-gcm") as two,
    ):
        await understand(one, two)


@pytest.mark.parametrize("encryption", ENCRYPTIONS)
async def test_what_redis_can_see(valkey: Server, encryption: str) -> None:
    """Names, but no part of a body."""
    client = valkey.client()
    keys = {"symmetric_encryption_keys": ["secret"], "encryption": encryption}
    async with opened(valkey.url, **keys) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        for send, target in (layer.send, "worker"), (layer.group_send, "room"):
            await send(target, {"the key": "the value"})
        seen = {key: client.zrange(key, 0, -1) for key in kept(client)}
        process = f"asgi{name.partition('!')[0]}!".encode()
        assert seen.keys() == {process, b"asgiworker", b"asgi:group:room"}
        assert seen[b"asgi:group:room"] == [name.encode()]
        (sent,), (to_group,) = seen[b"asgiworker"], seen[process]
        for member in sent, to_group:
            assert b"the " not in member
            assert name.encode() not in member


@pytest.mark.parametrize("encryption", ENCRYPTIONS)
async def test_what_a_writer_to_redis_can_do(valkey: Server, encryption: str) -> None:
    """Repeat a message; move it to another channel, too, but not with AES-GCM."""
    client = valkey.client()
    keys = {"symmetric_encryption_keys": ["secret"], "encryption": encryption}
    async with opened(valkey.url, **keys) as layer:
        await layer.send("worker", {"n": 1})
        ((member, score),) = client.zrange("asgiworker", 0, -1, withscores=True)
        repeated = b"x" * UNIQUE + member[UNIQUE:]
        client.zadd("asgiworker", {repeated: score})
        assert [await soon(layer, "worker") for _ in range(2)] == [{"n": 1}] * 2
        client.zadd("asgielsewhere", {member: score})
        if encryption == "fernet":
            assert await soon(layer, "elsewhere") == {"n": 1}
        else:
            assert await nothing(layer, "elsewhere")
            assert layer.counters == {"unreadable": 1}
        # Between processes it helps with neither: the message names its channels.
        mine, theirs = await layer.new_channel(), await layer.new_channel("other")
        await layer.send(mine, {"n": 2})
        at = [f"asgi{name.partition('!')[0]}!" for name in (mine, theirs)]
        client.rename(*at)
        assert await nothing(layer, theirs)


@pytest.mark.parametrize("encryption", ENCRYPTIONS)
@pytest.mark.parametrize(("age", "arrives"), [(69, True), (80, False), (-80, False)])
async def test_how_long_a_message_can_be_repeated(
    valkey: Server, encryption: str, age: int, arrives: bool
) -> None:
    """Core: `expiry` and ten seconds. Pub/Sub: without an end."""
    client = valkey.client()
    keys = {"symmetric_encryption_keys": ["secret"], "encryption": encryption}
    async with opened(valkey.url, **keys) as layer:
        token = sealed({"n": 1}, encryption, b"asgiworker", age)
        client.zadd("asgiworker", {b"x" * UNIQUE + token: time.time()})
        if arrives:
            assert await soon(layer, "worker") == {"n": 1}
        else:
            assert await nothing(layer, "worker")
            assert layer.counters == {"unreadable": 1}
    async with published(valkey.url, **keys) as layer:
        name = await layer.new_channel()
        client.publish(name, sealed({"n": 1}, encryption, name.encode(), age))
        assert await soon(layer, name) == {"n": 1}


def sealed(message: Any, encryption: str, key: bytes, age: int) -> bytes:
    """What was sent to a key so many seconds ago."""
    payload, made = msgpack.packb(message), int(time.time()) - age
    if encryption == "fernet":
        return FernetFrames(["secret"]).seal_at(payload, made, bytes(16))
    return AesGcmFrames(["secret"]).seal_at(payload, key, made)


EMPTY = {"dicts": b"\x80", "lists": b"\x90"}


@pytest.mark.parametrize("empty", EMPTY.values(), ids=EMPTY)
def test_what_a_message_takes_when_it_is_read(empty: bytes) -> None:
    """Empty containers are what grows most: a byte each in msgpack."""
    count = 100_000
    payload = b"\x81\xa1a\xdd" + count.to_bytes(4, "big") + empty * count
    tracemalloc.start()
    try:
        _envelope.unpack(payload)
        assert tracemalloc.get_traced_memory()[1] < 80 * len(payload)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("depth", "readable"), [(1022, True), (1100, False)])
def test_how_deep_messages_are_nested(depth: int, readable: bool) -> None:
    payload = b"\x81\xa1a" + b"\x91" * depth + b"\x90"
    if readable:
        assert _envelope.unpack(payload)
    else:
        with pytest.raises(UnreadableMessage):
            _envelope.unpack(payload)
