"""Messages on their way back to Redis, to the places that they had there."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from ..commands.errors import may_pass
from ..commands.operations import Operations
from ..mailboxes.dropped import DropCounters
from .poller import KeyPoller
from .pops import Entry

_MOST = 500  # messages in one command


class Returns:
    """What a channel's readers popped and nobody wants, until Redis has it again.

    `keep` takes what Redis doesn't take back now, or says that it can't.
    """

    def __init__(
        self,
        name: str,
        operations: Operations,
        counters: DropCounters,
        keep: Callable[[KeyPoller, list[Entry]], bool],
    ) -> None:
        self._name = name
        self._operations = operations
        self._counters = counters
        self._keep = keep
        self.under_way: set[asyncio.Future[Any]] = set()

    def begin(self, poller: KeyPoller, entries: list[Entry]) -> None:
        """Puts what came by a poller back."""
        for start in range(0, len(entries), _MOST):
            self._put_back(poller, entries[start : start + _MOST])

    async def finish(self) -> None:
        """Returns when nothing is on its way any more."""
        while self.under_way:
            await asyncio.wait(list(self.under_way))

    def _put_back(self, poller: KeyPoller, entries: list[Entry]) -> None:
        # Not repeated when the connection breaks: who got it meanwhile has it.
        command = self._operations.put_back(poller.key, entries)
        returning = poller.shard.run(command)
        self.under_way.add(returning)
        returning.add_done_callback(functools.partial(self._answered, poller, entries))

    def _answered(
        self, poller: KeyPoller, entries: list[Entry], returning: asyncio.Future[Any]
    ) -> None:
        self.under_way.discard(returning)
        error = None if returning.cancelled() else returning.exception()
        if error is not None and may_pass(error) and self._keep(poller, entries):
            return
        if returning.cancelled() or error is not None:
            count = len(entries)
            self._counters.count("lost while being put back", self._name, count)
