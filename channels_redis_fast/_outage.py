"""Tells when the first of several connections is lost and when all are back."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Outage:
    """`begin` is called when something is lost, `end` when nothing is any more."""

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin = begin
        self._end = end
        self._lost: set[object] = set()
        self._lock = threading.Lock()

    def lost(self, what: object) -> None:
        """Notes a loss, once or several times."""
        with self._lock:
            is_first = not self._lost
            self._lost.add(what)
            if is_first:
                self._begin()

    def back(self, what: object) -> None:
        """Notes that something is there (again)."""
        with self._lock:
            if what in self._lost:
                self._lost.remove(what)
                if not self._lost:
                    self._end()
