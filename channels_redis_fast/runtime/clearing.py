"""Groups that somebody cleared: what this process knows of them is put right."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Container
from contextlib import AbstractContextManager, suppress
from typing import Any

from redis.exceptions import RedisError

from ..commands.clearing import members_of
from ..commands.operations import Operations, Request

# What failed is tried again after so long (seconds), and not before ten times what the
# failure took.
_RETRY_AFTER = 1.0


class Clearing:
    """Looks who is left in groups that were cleared.

    So that the others are neither refreshed nor put back when Redis loses its data. It
    looks instead of taking the notice for the fact: channels may have joined since.
    `looking` is entered with a group while Redis is asked, and told who is there;
    `known` has the groups that this process has members of.
    """

    def __init__(
        self,
        looking: Callable[[str], AbstractContextManager[set[str]]],
        operations: Operations,
        known: Container[str],
    ) -> None:
        self._known = known
        self._looking = looking
        self._operations = operations
        self._groups: set[str] = set()
        self._not_before = 0.0

    def note(self, group: object, key: bytes = b"") -> None:
        """Somebody cleared a group, as a message by a key says; from any thread.

        Whatever else stands there is nothing to ask Redis for.
        """
        if isinstance(group, str) and group in self._known:
            self._groups.add(group)

    @property
    def is_due(self) -> bool:
        """Whether `look` has something to do."""
        return bool(self._groups) and time.monotonic() >= self._not_before

    async def look(self, run_all: Callable[[list[Request]], Awaitable[Any]]) -> None:
        """Forgets the members that are gone; what fails is due again, after a while."""
        began = time.monotonic()
        for group in list(self._groups):
            self._groups.discard(group)
            is_done = False
            try:
                with suppress(RedisError):
                    await self._look_at(group, run_all)
                    is_done = True
            finally:
                if not is_done:
                    self._groups.add(group)
                    now = time.monotonic()
                    self._not_before = now + max(_RETRY_AFTER, 10 * (now - began))

    async def _look_at(
        self, group: str, run_all: Callable[[list[Request]], Awaitable[Any]]
    ) -> None:
        with self._looking(group) as there:
            (reply,) = await run_all([members_of(self._operations, group)])
            if isinstance(reply, RedisError):
                raise reply
            there.update(name.decode("utf-8", "replace") for name in reply)
