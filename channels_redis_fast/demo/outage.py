"""Cuts this process off from Redis as networks do: at any time, amid anything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

CUTS = 10
EVERY = 0.3  # seconds; time to connect again, and to be in the midst of something

_under_way: set[asyncio.Task[None]] = set()


def is_under_way() -> bool:
    """Whether this process is being cut off now."""
    return bool(_under_way)


def begin(port: int, then: Callable[[], Awaitable[None]]) -> None:
    """Cuts all connections to Redis, CUTS times, then calls back, when Redis answers.

    The port is the one at which this process serves browsers: those connections stay.
    """
    task = asyncio.create_task(_work(port, then))
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)


async def _work(port: int, then: Callable[[], Awaitable[None]]) -> None:
    for _ in range(CUTS):
        for number in map(int, os.listdir("/dev/fd")):
            with contextlib.suppress(OSError):  # most files are no connections
                _cut(number, port)
        await asyncio.sleep(EVERY)
    for _ in range(CUTS):
        with contextlib.suppress(RedisError):
            await then()
            return
        await asyncio.sleep(EVERY)


def _cut(number: int, port: int) -> None:
    """Cuts a connection, if it is one that this process opened: those are Redis's."""
    connection = socket.socket(fileno=number)
    try:
        # Who wakes an event loop has a pair of sockets, which have no names.
        if connection.getpeername() and connection.getsockname()[1:2] != (port,):
            connection.shutdown(socket.SHUT_RDWR)
    finally:
        connection.detach()
