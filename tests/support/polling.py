"""Waiting for something to become true, without guessing how long it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    check: Callable[[], T], what: str, *, timeout: float = 10.0, pause: float = 0.005
) -> T:
    """Call `check` until it gives something true, and return that."""
    deadline = time.monotonic() + timeout
    while not (value := check()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout} s in vain for {what}")
        time.sleep(pause)
    return value


async def eventually(check: Callable[[], T], what: str, *, timeout: float = 10.0) -> T:
    """The same while the event loop goes on."""
    deadline = time.monotonic() + timeout
    while not (value := check()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout} s in vain for {what}")
        await asyncio.sleep(0.002)
    return value
