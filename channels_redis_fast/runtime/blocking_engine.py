"""A call's commands in the calling thread, blocking, for whom nobody else waits."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from ..client.blocking_shards import BlockingShards
from ..commands.operations import Request
from .base_engine import Engine

T = TypeVar("T")


def run_without_loop(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end without an event loop; it must wait for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError(
        "this call waits for an event loop: an overridden method does more than a "
        "blocking call can, or the running loop has connections of its own; await it"
    )


class BlockingEngine(Engine):
    """What a `LoopEngine` is to the calls of an event loop, for the time of one call.

    `command_timeout` (seconds) bounds it; of many messages each round trip, as long as
    they get on. Sends are confirmed: nobody would read the answers later.
    """

    def __init__(self, blocking: BlockingShards, command_timeout: float) -> None:
        self._blocking = blocking
        self.shards = blocking.shards
        self._timeout = command_timeout

    async def run(self, request: Request, began: float = 0.0) -> Any:
        """As an `Engine`'s."""
        deadline = (began or time.monotonic()) + self._timeout
        return self._blocking.run(*request, deadline)

    async def run_all(self, requests: list[Request], began: float = 0.0) -> list[Any]:
        """As an `Engine`'s."""
        deadline = (began or time.monotonic()) + self._timeout
        return self._blocking.run_all(requests, deadline)

    async def unlink(self, pattern: bytes) -> None:
        """Deletes the keys that match a glob pattern."""
        self._blocking.unlink(pattern, self._timeout)
