"""Counts without locks: everybody has their own, which are added up when asked for."""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

# Seconds; the last bucket is for all beyond. From a busy loopback to a message that
# waited for as long as most of them live.
_SUB_SECOND = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
BOUNDS = (*_SUB_SECOND, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# So often (seconds) a connection notes how long a round trip took: to time each would
# be felt.
SAMPLE_EVERY = 0.1

Outcomes = list[Exception | None]  # of many sends


@dataclass(slots=True)
class Histogram:
    """How many durations (seconds) were in each bucket, and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    sum: float = 0.0

    def observe(self, seconds: float) -> None:
        """Counts a duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def __add__(self, other: Histogram) -> Histogram:
        counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        return Histogram(counts, self.sum + other.sum)


class Counts:
    """Numbers that can be added to others of their kind."""

    __slots__ = ()

    def __add__(self, other: Any) -> Any:
        names = [each.name for each in fields(self)]  # type: ignore[arg-type]
        return type(self)(*(getattr(self, n) + getattr(other, n) for n in names))


@dataclass(slots=True)
class Messages(Counts):
    """What one thread, or one event loop, sent and received."""

    to_channels: int = 0
    to_groups: int = 0
    full_channels: int = 0  # sends that raised `ChannelFull`
    full_members: int = 0  # processes that missed a group's message
    received: int = 0
    copies: int = 0  # of these, for further channels of this process

    def many_to_channels(self, outcomes: Outcomes) -> Outcomes:
        """Counts what was sent by these outcomes, None or an error for each."""
        self.to_channels += outcomes.count(None)
        return outcomes

    def many_to_groups(self, outcomes: Outcomes) -> Outcomes:
        """The same for groups."""
        self.to_groups += outcomes.count(None)
        return outcomes


@dataclass(slots=True)
class Traffic(Counts):
    """What went over one connection, or how often those of one loop came back."""

    bytes_sent: int = 0
    bytes_received: int = 0
    reconnects: int = 0
    roundtrips: Histogram = field(default_factory=Histogram)


C = TypeVar("C", bound=Counts)


class Ledger(Generic[C]):
    """Gives out counts, each to be raised by one thread at a time, and adds them up."""

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self.begin()

    def begin(self) -> None:
        """From zero; anew after a fork, since the rest is the parent's to tell."""
        self._lock = threading.RLock()
        self._open: list[C] = []
        self._before = self._make()  # those whose owners are gone
        self._ended: deque[C] = deque()  # filled by finalisers, which may run anywhere
        self._threads = threading.local()

    def open(self, owner: object) -> C:
        """Counts that last as long as their owner; what they had is kept."""
        counts = self._make()
        with self._lock:
            self._fold()
            self._open.append(counts)
        weakref.finalize(owner, self._ended.append, counts).atexit = False
        return counts

    def here(self) -> C:
        """Those of this thread."""
        try:
            found: C = self._threads.counts
        except AttributeError:
            owner = self._threads.owner = _Owner()
            found = self._threads.counts = self.open(owner)
        return found

    def total(self) -> C:
        """The sum of all, also of those that are gone."""
        with self._lock:
            self._fold()
            total = self._before
            for counts in self._open:
                total += counts
        return total

    def _fold(self) -> None:
        while self._ended:
            counts = self._ended.popleft()
            self._open = [one for one in self._open if one is not counts]
            self._before += counts


class _Owner:
    """Goes with the thread that has it."""
