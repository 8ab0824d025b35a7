"""Tells when the first of several connections is lost and when all are back."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Outage:
    """`begin` is called when something is lost, `end` when nothing is any more.

    What was replaced doesn't end it: there may be no server for the other one, too.
    """

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin = begin
        self._end = end
        self._is_on = False
        self._lost: set[object] = set()
        self._lock = threading.Lock()

    def lost(self, what: object) -> None:
        """Notes a loss, once or several times."""
        with self._lock:
            self._lost.add(what)
            if not self._is_on:
                self._is_on = True
                self._begin()

    def joined(self, what: object) -> None:
        """Notes something new, for which an outage lasts until it is there."""
        with self._lock:
            if self._is_on:
                self._lost.add(what)

    def back(self, what: object) -> None:
        """Notes that something is there (again)."""
        if not self._is_on:
            return
        with self._lock:
            self._lost.discard(what)
            if self._is_on and not self._lost:
                self._is_on = False
                self._end()

    def needless(self, what: object) -> None:
        """Notes that nothing needs it any more."""
        with self._lock:
            if what not in self._lost:
                return
        self.back(what)

    def replaced(self, what: object) -> None:
        """Notes that another will be used in its place, when that one is there."""
        with self._lock:
            self._lost.discard(what)
