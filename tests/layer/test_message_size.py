"""`max_message_size`: what a sender accepts its receivers accept, too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from channels_redis_fast._hooks import MessageTooLarge
from channels_redis_fast.commands import operations
from channels_redis_fast.exceptions import UnreadableMessage
from channels_redis_fast.serializers import registry
from channels_redis_fast.wire import _envelope
from channels_redis_fast.wire.codec import MOST_CHANNELS, SizeLimit, codec_of
from support.layers import FORMATS, nothing, soon
from support.servers import Server
from support.syncing import KINDS

LIMIT = 1_000


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=FORMATS)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = FORMATS[request.param]
    return found


@asynccontextmanager
async def limited(kind: str, server: Server, **options: Any) -> AsyncIterator[Any]:
    """A layer that takes messages of `LIMIT` bytes."""
    layer = KINDS[kind](hosts=[server.url], max_message_size=LIMIT, **options)
    try:
        yield layer
    finally:
        await layer.close_pools()


async def test_what_is_sent_is_received(
    kind: str, way: dict[str, Any], valkey: Server
) -> None:
    async with limited(kind, valkey, **way) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        routes = [
            (layer.send, name, name),
            (layer.send, "worker", "worker"),
            (layer.group_send, "room", name),
        ]
        for send, target, source in routes:
            refused = 0
            for size in range(600, 1_200, 5):
                message = {"text": "x" * size}
                try:
                    await send(target, message)
                except MessageTooLarge:
                    refused += 1
                else:
                    assert await soon(layer, source) == message
            assert 0 < refused < 100
        assert layer.counters == {}


async def test_a_crowd_of_members_is_no_message(
    way: dict[str, Any], valkey: Server
) -> None:
    """Their names take more bytes than the message may have."""
    async with limited("core", valkey, **way) as layer:
        names = [await layer.new_channel() for _ in range(50)]
        for name in names:
            await layer.group_add("room", name)
        message = {"text": "x" * 500}
        await layer.group_send("room", message)
        assert await layer.group_send_many([("room", message)]) == [None]
        for name in names:
            assert [await soon(layer, name) for _ in range(2)] == [message] * 2
        assert layer.counters == {}


async def test_larger_crowds_get_several_members(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "MOST_CHANNELS", 20)
    async with limited("core", valkey) as layer:
        names = [await layer.new_channel() for _ in range(50)]
        for name in names:
            await layer.group_add("room", name)
        key = f"asgi{names[0].split('!')[0]}!"
        sealed = layer._operations.seal_all([n.encode() for n in names], b"\x80")
        assert [one.key.decode() for one in sealed] == [key] * 3
        await layer.group_send("room", {"n": 1})
        for name in names:
            assert await soon(layer, name) == {"n": 1}
            assert await nothing(layer, name)


def test_the_longest_list_is_read() -> None:
    """Of names of 100 bytes, with the longest message."""
    limit = SizeLimit(LIMIT, MessageTooLarge)
    names = [f"{n:0>100}".encode() for n in range(MOST_CHANNELS)]
    for options in FORMATS.values():
        chosen = {"symmetric_encryption_keys": None, "encryption": "fernet", **options}
        format = chosen.pop("serializer_format", "msgpack")
        codec = codec_of(registry.get_serializer(format, **chosen), limit)
        message = {"text": "x" * 900}
        member = codec.seal_list(codec.body(message), names, b"key")
        assert codec.open(member, b"key") == (
            [name.decode() for name in names],
            message,
            format == "msgpack",
        )


@pytest.mark.parametrize("entries", [1, 15, 16])
def test_the_limit_is_exact(entries: int) -> None:
    """Also where one entry more makes the header longer."""
    message = {str(n): "x" for n in range(entries)}
    body = _envelope.pack(message)
    for whole in (
        body,
        _envelope.splice(b"", body, "name"),
        _envelope.splice_list(b"", body, [b"one", b"two"]),
    ):
        assert _envelope.unpack(whole, 0, len(body))[1] == message
        with pytest.raises(UnreadableMessage, match=f"of {len(body)} bytes"):
            _envelope.unpack(whole, 0, len(body) - 1)
