"""Names that look for the node they are to be subscribed at; no I/O."""

from __future__ import annotations

import asyncio
import contextlib

from ..client.timeouts import timeout

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.5


class Seeking:
    """The names of a shard that have no place, and those of the last round."""

    def __init__(self) -> None:
        self._names: set[bytes] = set()
        self._tried: set[bytes] = set()
        self._has_new = asyncio.Event()
        self._pause = _FIRST_PAUSE

    @property
    def names(self) -> set[bytes]:
        """Those that may have no place yet."""
        return self._names | self._tried

    def add(self, name: bytes) -> None:
        """Adds a name for the next round, which is at once if this is new."""
        self._names.add(name)
        if name not in self._tried:
            self._has_new.set()

    def take(self) -> list[bytes]:
        """The names of the next round."""
        is_new = self._has_new.is_set()
        self._pause = _FIRST_PAUSE if is_new else min(2 * self._pause, _LONGEST_PAUSE)
        self._has_new.clear()
        self._tried, self._names = self._names, set()
        return list(self._tried)

    async def pause(self) -> None:
        """Waits a while, or for a name that is new."""
        with contextlib.suppress(asyncio.TimeoutError):
            async with timeout(self._pause):
                await self._has_new.wait()
