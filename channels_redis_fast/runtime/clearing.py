"""Groups that somebody cleared: what this process knows of them is put right."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from ..commands.clearing import members_of
from ..commands.operations import Operations, Request
from .upkeep import retry_at


class Clearing:
    """Looks who is left in groups that were cleared.

    So that the others are neither refreshed nor put back when Redis loses its data. It
    looks instead of taking the notice for the fact: channels may have joined since.
    `looking` is called with a group before Redis is asked; what it returns is told who
    is there. `known` has the groups that this process has members of.
    """

    def __init__(
        self,
        looking: Callable[[str], Callable[[set[str]], None]],
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
        began, undone = time.monotonic(), self._groups.copy()
        self._groups -= undone  # from now on, they may be cleared again
        try:
            with suppress(RedisError):
                undone = await self._look_at(list(undone), run_all)
        finally:
            if undone:
                self._groups |= undone
                self._not_before = retry_at(began)

    async def _look_at(
        self, groups: list[str], run_all: Callable[[list[Request]], Awaitable[Any]]
    ) -> set[str]:
        """Looks at all at once, as callers may wait for it; those where it failed."""
        looks = list(map(self._looking, groups))
        replies = await run_all([members_of(self._operations, one) for one in groups])
        failed: set[str] = set()
        for group, forget_all_but, reply in zip(groups, looks, replies, strict=True):
            if isinstance(reply, RedisError):
                failed.add(group)
            else:
                forget_all_but({name.decode("utf-8", "replace") for name in reply})
        return failed
