"""What is counted of a layer in this process, by all its loops and threads."""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_left
from collections import deque

# Seconds; the last bucket is for all beyond. From a busy loopback to a message that
# waited for as long as most of them live.
_SUB_SECOND = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
BOUNDS = (*_SUB_SECOND, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

Outcomes = list[Exception | None]  # of many sends


class Count(itertools.count):  # type: ignore[type-arg]
    """A number that any thread raises by `next(count)`.

    That is one step of the interpreter, which a lock would be felt beside.
    """

    def __init__(self) -> None:
        self._looks = 0
        self._lock = threading.RLock()

    def add(self, number: int) -> None:
        """Raises it by so much."""
        deque(itertools.islice(self, number), maxlen=0)

    @property
    def value(self) -> int:
        """How often it was raised."""
        with self._lock:
            found: int = next(self) - self._looks
            self._looks += 1
            return found


class Histogram:
    """How many durations (seconds) were in each bucket, and their sum."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Counts a duration."""
        with self._lock:
            self._counts[bisect_left(BOUNDS, seconds)] += 1
            self._sum += seconds

    def snapshot(self) -> tuple[list[int], float]:
        """The counts so far, and the sum."""
        with self._lock:
            return list(self._counts), self._sum


class Messages:
    """What a layer sent, and received on normal channels."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """From zero; anew after a fork, since the rest is the parent's to tell."""
        self.to_channels = Count()
        self.to_groups = Count()
        self.full_channels = Count()  # sends that raised `ChannelFull`
        self.full_members = Count()  # processes that missed a group's message
        self.received = Count()


class Traffic:
    """What event loops noticed of a host."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """From zero; anew after a fork."""
        self.reconnects = Count()
        self.roundtrips = Histogram()


def count_sent(count: Count, outcomes: Outcomes) -> Outcomes:
    """Counts what was sent by these outcomes, None or an error for each."""
    count.add(outcomes.count(None))
    return outcomes
