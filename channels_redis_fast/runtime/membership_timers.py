"""When memberships end that nobody refreshes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import takewhile


class MembershipTimers:
    """When the memberships of (name, channel) end that nobody refreshes.

    `leave` is called with those that began `seconds` ago, be they over by then or not;
    None: never.
    """

    def __init__(
        self, seconds: float | None, leave: Callable[[bytes, str], None]
    ) -> None:
        self._seconds = seconds
        self._leave = leave
        self._lock = threading.Lock()
        self._began: dict[tuple[bytes, str], float] = {}  # the oldest first

    def begin(self, name: bytes, channel: str) -> None:
        """A term begins, anew if one is running."""
        if self._seconds is not None:
            with self._lock:
                self._began.pop((name, channel), None)
                self._began[name, channel] = time.monotonic()

    def forget(self, name: bytes, channel: str) -> None:
        """A membership ended."""
        if self._seconds is not None:
            with self._lock:
                self._began.pop((name, channel), None)

    def end_due(self) -> None:
        """Ends the memberships whose terms are over."""
        if self._seconds is None:
            return
        oldest = time.monotonic() - self._seconds
        with self._lock:
            due = list(takewhile(lambda term: term[1] <= oldest, self._began.items()))
            for key, _ in due:
                del self._began[key]
        for key, _ in due:
            self._leave(*key)
