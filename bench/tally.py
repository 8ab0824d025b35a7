"""What became of numbered messages, and percentiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass
class Tally:
    """How many messages arrived, and how many wrongly."""

    received: int = 0  # each number once
    lost: int = 0
    doubled: int = 0  # came again, or was never sent
    disordered: int = 0  # came after a later one of the same sender

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.received + other.received,
            self.lost + other.lost,
            self.doubled + other.doubled,
            self.disordered + other.disordered,
        )

    @property
    def is_clean(self) -> bool:
        """Whether every message came, once and in order."""
        return not (self.lost or self.doubled or self.disordered)


def tally(numbers: Iterable[int], expected: range, senders: int = 1) -> Tally:
    """Counts what came to one reader of these numbers, in order of arrival.

    Sender `s` of so many sends those numbers of which `s` is the remainder.
    """
    seen: set[int] = set()
    latest: dict[int, int] = {}
    found = Tally()
    for number in numbers:
        if number in seen or number not in expected:
            found.doubled += 1
            continue
        seen.add(number)
        sender = number % senders
        if number < latest.get(sender, -1):
            found.disordered += 1
        else:
            latest[sender] = number
    found.received = len(seen)
    found.lost = len(expected) - len(seen)
    return found


def shared(logs: Sequence[list[int]], expected: range, senders: int = 1) -> Tally:
    """The same of several readers that share the messages, each in its own order."""
    each = [tally(log, expected, senders) for log in logs]
    seen = set().union(*logs).intersection(expected)
    arrived = sum(map(len, logs))
    return Tally(
        received=len(seen),
        lost=len(expected) - len(seen),
        doubled=arrived - len(seen),
        disordered=sum(one.disordered for one in each),
    )


def percentile(values: Iterable[float], percent: float) -> float:
    """The value that so many percent don't exceed; NaN of none."""
    found = sorted(values)
    if not found:
        return float("nan")
    return found[min(len(found) - 1, int(len(found) * percent / 100))]
