"""Cuts this process off from Redis as networks do: at any time, amid anything."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable

CUTS = 10
EVERY = 0.3  # seconds; time to connect again, and to be in the midst of something

logger = logging.getLogger(__name__)

_under_way: set[asyncio.Task[None]] = set()  # one at most


def begin(port: int, then: Callable[[], Awaitable[None]]) -> bool:
    """Cuts all connections to Redis, CUTS times, and then calls back.

    Returns False, and does nothing, if that is under way. The port is the one at which
    this process serves browsers, whose connections stay.
    """
    if _under_way:
        return False
    task = asyncio.create_task(_work(port, then))
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    return True


async def _work(port: int, then: Callable[[], Awaitable[None]]) -> None:
    for _ in range(CUTS):
        for number in map(int, os.listdir("/dev/fd")):
            with contextlib.suppress(OSError):  # most files are no connections
                _cut(number, port)
        await asyncio.sleep(EVERY)
    try:
        await then()
    except Exception:
        logger.exception("could not tell what was said during an outage")


def _cut(number: int, port: int) -> None:
    """Cuts a connection, if it is one that this process opened: those are Redis's."""
    connection = socket.socket(fileno=number)
    try:
        # Who wakes an event loop has a pair of sockets, which have no names.
        if connection.getpeername() and connection.getsockname()[1:2] != (port,):
            connection.shutdown(socket.SHUT_RDWR)
    finally:
        connection.detach()
