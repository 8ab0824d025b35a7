"""Tells when the first of several connections is lost and when all are back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol


class Connection(Protocol):
    """What can be lost."""

    loop: asyncio.AbstractEventLoop


class OutageNotifier:
    """`begin` is called when something is lost, `end` when nothing is any more.

    What was replaced doesn't end it by itself: there may be no server for the other
    one, too. Nor does the loss of a loop that stands still keep it from ending: nobody
    would say when it is over. Those that run look, by `review`.
    """

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin = begin
        self._end = end
        self._is_on = False
        self._lost: set[Connection] = set()
        self._lock = threading.Lock()

    def lost(self, what: Connection) -> None:
        """Notes a loss, once or several times."""
        with self._lock:
            self._lost.add(what)
            if not self._is_on:
                self._is_on = True
                self._begin()

    def joined(self, what: Connection) -> None:
        """Notes something new, for which an outage lasts until it is there."""
        with self._lock:
            if self._is_on:
                self._lost.add(what)

    def back(self, what: Connection) -> None:
        """Notes that something is there (again)."""
        if not self._is_on:
            return
        with self._lock:
            self._lost.discard(what)
            self._end_if_over()

    def is_lost(self, what: Connection) -> bool:
        """Whether something was lost, and isn't back yet."""
        return what in self._lost

    def needless(self, what: Connection) -> None:
        """Notes that nothing needs it any more."""
        with self._lock:
            if what not in self._lost:
                return
        self.back(what)

    def replaced(self, what: Connection) -> None:
        """Notes that another will be used in its place, when that one is there."""
        with self._lock:
            self._lost.discard(what)

    def review(self, is_whole: Callable[[], bool]) -> None:
        """Ends it if nothing is lost in a loop that runs, and the caller `is_whole`."""
        if not self._is_on:
            return
        with self._lock:
            self._lost = {what for what in self._lost if what.loop.is_running()}
            if is_whole():
                self._end_if_over()

    def _end_if_over(self) -> None:
        if self._is_on and not self._lost:
            self._is_on = False
            self._end()
