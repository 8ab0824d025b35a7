"""Layers for one test, whose connections are closed after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from channels.exceptions import ChannelFull

from channels_redis_fast.core import RedisChannelLayer
from support.syncing import KINDS

# What every layer carries as it is.
MESSAGES = {
    "empty": {},
    "flat": {"type": "chat", "text": "hello", "n": 1, "ok": True, "none": None},
    "nested": {"type": "t", "list": [1, [2, {"x": "y"}]], "map": {"a": {"b": 1.5}}},
    "bytes": {"type": "t", "bytes": bytes(range(256))},
    "unicode": {"type": "t", "text": "žluťoučký kůň 🐎", "ключ": "значение"},
    "numbers": {"type": "t", "n": [0, -1, 2**64 - 1, -(2**63), 1e300]},
    "big": {"type": "t", "text": "x" * 1_000_000},
}

# Options by what becomes of messages.
FORMATS: dict[str, dict[str, Any]] = {
    "msgpack": {},
    "fernet": {"symmetric_encryption_keys": ["a key"]},
    "aes-gcm": {"symmetric_encryption_keys": ["a key"], "encryption": "aes-gcm"},
    "json": {"serializer_format": "json"},
}


@asynccontextmanager
async def opened(*hosts: Any, kind: str = "core", **options: Any) -> AsyncIterator[Any]:
    """A layer on these hosts, a core layer unless another `kind` is named."""
    layer = KINDS[kind](hosts=list(hosts), **options)
    try:
        yield layer
    finally:
        await layer.close_pools()


@asynccontextmanager
async def unconfirmed(kind: str, *hosts: Any, **options: Any) -> AsyncIterator[Any]:
    """A layer of either kind on these hosts, whose sends wait for no answer."""
    layer = KINDS[kind](hosts=list(hosts), confirm_sends=False, **options)
    try:
        yield layer
    finally:
        await layer.close_pools()


async def soon(layer: RedisChannelLayer, channel: str, timeout: float = 10.0) -> Any:
    """The next message of a channel, or TimeoutError."""
    return await asyncio.wait_for(layer.receive(channel), timeout)


async def nothing(layer: RedisChannelLayer, channel: str) -> bool:
    """Whether nothing was sent to a channel before this was called.

    Messages keep their order, so what comes first is the one sent here. It takes the
    place of a wait; at the end the channel is empty.
    """
    await layer.send(channel, {"type": "last"})
    return bool(await soon(layer, channel) == {"type": "last"})


async def persist(layer: RedisChannelLayer, channel: str, message: Any) -> int:
    """Send until the channel takes it; how often it was full."""
    refused = 0
    while True:
        try:
            await layer.send(channel, message)
        except ChannelFull:
            refused += 1
            await asyncio.sleep(0)
        else:
            return refused


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def call(layer: RedisChannelLayer, way: str, method: str, *args: Any) -> None:
    """Calls a method, awaited or blocking."""
    if way == "loop":
        await getattr(layer, method)(*args)
    else:
        await asyncio.to_thread(getattr(layer.sync, method), *args)
