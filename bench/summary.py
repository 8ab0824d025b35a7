"""Rounds -> medians, ranges and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rounds = Sequence[Mapping[str, Any]]  # what `Figures.asdict` says, by round


@dataclass(frozen=True)
class Middle:
    """A median and its range."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Middle | None:
        """None of none."""
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values))


def middle(rounds: Rounds, key: str) -> Middle | None:
    """Of one figure, in the rounds that have it."""
    return Middle.of([one[key] for one in rounds if key in one])


def quotients(above: Rounds, key: str, below: Rounds, other: str) -> Middle | None:
    """One figure to another of the same round; None where neither has both."""
    pairs = zip(above, below, strict=False)
    return Middle.of(
        [a[key] / b[other] for a, b in pairs if a.get(key) and b.get(other)]
    )


def ratio(ours: Rounds, others: Rounds, key: str = "rate") -> Middle | None:
    """How many times as much of the same figure."""
    return quotients(ours, key, others, key)


@dataclass(frozen=True)
class Row:
    """One contender in one case."""

    name: str
    rounds: Rounds
    times: Middle | None  # the reference's rate to this one's

    def total(self, key: str) -> int:
        """Of all rounds."""
        return sum(one.get(key, 0) for one in self.rounds)

    def cells(self) -> list[str]:
        """As text: name, rate, range, ratio, the rest."""
        failures = [one["failure"] for one in self.rounds if "failure" in one]
        rate = middle(self.rounds, "rate")
        cells = [f"{self.name:22}"]
        if rate and rate.high:
            cells.append(f"{rate.value:10,.0f} ({rate.low:,.0f} to {rate.high:,.0f})")
        if self.times:
            times = self.times
            cells.append(f"x {times.value:.2f} ({times.low:.2f} to {times.high:.2f})")
        for key, unit in UNITS.items():
            if found := middle(self.rounds, key):
                cells.append(unit.format(found.value))
        for key in ("lost", "doubled", "disordered"):
            if count := self.total(key):
                cells.append(f"{key} {count}")
        return [*cells, *(f"FAILED: {text}" for text in dict.fromkeys(failures))]


UNITS = {
    "p50": "p50 {:,.0f} µs",
    "p99": "p99 {:,.0f} µs",
    "python": "CPU/10k: Python {:.3f} s",
    "server": "server {:.3f} s",
    "bytes": "{:,.0f} bytes each",
    "share": "{:.2%} of a CPU",
}


def rows(found: Mapping[str, Rounds], reference: str) -> list[Row]:
    """A row for each contender, compared with the reference."""
    return [
        Row(name, rounds, ratio(found[reference], rounds))
        for name, rounds in found.items()
    ]
