"""What several points do: names of their own, bounded waits, filling and emptying."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from channels.exceptions import ChannelFull

# How long (seconds) a message may be on its way before it counts as lost.
patience: ContextVar[float] = ContextVar("patience", default=5.0)


def fresh(name: str = "worker") -> str:
    """A name that no other point uses."""
    return f"{name}.{uuid.uuid4().hex[:12]}"


async def soon(layer: Any, channel: str) -> Any:
    """The next message of a channel; lost if it doesn't come."""
    try:
        return await asyncio.wait_for(layer.receive(channel), patience.get())
    except asyncio.TimeoutError:
        raise AssertionError("a message did not arrive") from None


async def numbers(layer: Any, channel: str, count: int) -> list[int]:
    """The numbers of the next messages."""
    return [(await soon(layer, channel))["n"] for _ in range(count)]


async def silent(layer: Any, channel: str) -> bool:
    """Whether a process-specific channel has nothing: what is sent now comes first."""
    await layer.send(channel, {"type": "last"})
    return bool(await soon(layer, channel) == {"type": "last"})


async def empty(layer: Any, channel: str) -> bool:
    """Whether a normal channel has nothing, on however many servers it may be."""
    marks = set(range(24))
    for mark in marks:
        await layer.send(channel, {"type": "last", "mark": mark})
    found = [(await soon(layer, channel)).get("mark") for _ in marks]
    return set(found) == marks


async def fill(layer: Any, channel: str, most: int = 60) -> int:
    """Send until the channel is full; how many it took."""
    for n in range(most):
        try:
            await asyncio.wait_for(layer.send(channel, {"n": n}), patience.get())
        except ChannelFull:
            return n
    return most


async def send(layer: Any, channel: str, message: Any) -> None:
    """Send, and again while the channel is full."""
    while True:
        try:
            await layer.send(channel, message)
        except ChannelFull:
            await asyncio.sleep(0)
        else:
            return


async def refuses(call: Coroutine[Any, Any, Any]) -> bool:
    """Whether a call raises soon that what it got is wrong."""
    try:
        await asyncio.wait_for(call, patience.get() / 10)
    except (asyncio.TimeoutError, ChannelFull, OSError):
        return False
    except Exception:
        return True
    return False


@asynccontextmanager
async def running(
    *coroutines: Coroutine[Any, Any, Any],
) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Tasks that have ended, however they did, when the block is left."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
