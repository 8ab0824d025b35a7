"""Messages that are really sent and received, by any channel layer."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from channels.exceptions import ChannelFull
from redis import exceptions as errors

from ..client.timeouts import timeout
from .finding import Finding, Level, unseen

_NAME = "channels-redis-fast.check"


async def make_trips(layer: Any, where: str, seconds: float) -> list[Finding]:
    """One to a channel, one to a group, one to a normal channel, each so long at most.

    The layer's connections in this event loop are closed then.
    """
    found = []
    try:
        for topic, trip in _trips(layer):
            found.append(await _timed(topic, where, seconds, trip))
            if found[-1].level is Level.ERROR:
                break
    finally:
        if hasattr(layer, "close_pools"):
            await layer.close_pools()
    return found


def no_trips(where: str) -> Finding:
    """What is said when they can't be made."""
    return unseen("messages", where, "a server is not reached")


def _trips(layer: Any) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
    yield "send", lambda: _to_channel(layer)
    if "groups" in getattr(layer, "extensions", ()):
        yield "group_send", lambda: _to_group(layer)
    if getattr(layer, "normal_channels", "single") == "single":
        yield "normal channel", lambda: _to_normal_channel(layer)


async def _timed(
    topic: str, where: str, seconds: float, trip: Callable[[], Awaitable[None]]
) -> Finding:
    began = time.perf_counter()
    try:
        async with timeout(seconds):
            await trip()
    except asyncio.TimeoutError:
        text = f"a message did not come back within {seconds:g} s"
        remedy = "see what else was found, and the log of the server"
        return Finding(Level.ERROR, topic, where, text, remedy)
    except (errors.RedisError, ChannelFull, OSError) as error:
        remedy = "see what else was found, and the page on errors"
        return Finding(Level.ERROR, topic, where, f"failed: {error}", remedy)
    took = (time.perf_counter() - began) * 1000
    return Finding(Level.OK, topic, where, f"a message came back ({took:.1f} ms)")


async def _to_channel(layer: Any) -> None:
    channel, message = await layer.new_channel(), _message()
    await layer.send(channel, message)
    await _await_own(layer, channel, message)


async def _to_group(layer: Any) -> None:
    channel, message = await layer.new_channel(), _message()
    group = f"{_NAME}.{uuid.uuid4().hex}"
    await layer.group_add(group, channel)
    try:
        await layer.group_send(group, message)
        await _await_own(layer, channel, message)
    finally:
        await layer.group_discard(group, channel)


async def _to_normal_channel(layer: Any) -> None:
    channel, message = f"{_NAME}.{uuid.uuid4().hex}", _message()
    await layer.send(channel, message)
    await _await_own(layer, channel, message)


async def _await_own(layer: Any, channel: str, message: dict[str, Any]) -> None:
    while await layer.receive(channel) != message:
        pass


def _message() -> dict[str, Any]:
    return {"type": _NAME, "id": uuid.uuid4().hex}
