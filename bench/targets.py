"""What the figures should be, and whether they are: for the report, never a test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from contenders import CONTENDERS
from summary import Middle, Rounds, quotients, ratio

Found = Mapping[str, Mapping[str, Rounds]]  # by case and contender
KINDS = ("core", "pubsub")


class Verdict(NamedTuple):
    """One row of the report."""

    what: str
    bound: str
    found: str
    reached: str
    limit: str  # what a bare client reaches in the same rounds, where that says more


@dataclass(frozen=True)
class Target:
    """`ours` to `other` in a case: at least so many times as much, or at most."""

    case: str
    ours: str
    other: str
    bound: float
    key: str = "rate"
    is_most: bool = False
    once: bool = False  # and every message exactly once

    def verdict(self, found: Found) -> Verdict:
        """Whether the median of the rounds is within the bound."""
        rounds = found.get(self.case, {})
        ours, others = rounds.get(self.ours, ()), rounds.get(self.other, ())
        what = "" if self.key == "rate" else f" ({self.key})"
        what = f"{self.case}{what}: {self.ours} to {self.other}"
        wrong = sum(one.get(k, 0) for one in ours for k in ("lost", "doubled"))
        if self.once:
            what += ", each message once"
        fine = not (self.once and wrong)
        times = ratio(ours, others, self.key)
        bare = None
        if not CONTENDERS[self.other].is_limit:
            bare = ratio(rounds.get(_limit_of(self.ours), ()), others, self.key)
        return _judged(what, self.bound, self.is_most, times, bare, fine)


@dataclass(frozen=True)
class Tail:
    """p99 at most so many times p50."""

    case: str
    ours: str
    bound: float

    def verdict(self, found: Found) -> Verdict:
        """The same."""
        rounds = found.get(self.case, {})
        ours, bare = rounds.get(self.ours, ()), rounds.get(_limit_of(self.ours), ())
        times = quotients(ours, "p99", ours, "p50")
        what = f"{self.case}: p99 of {self.ours} to its p50"
        others = quotients(bare, "p99", bare, "p50")
        return _judged(what, self.bound, True, times, others, True)


@dataclass(frozen=True)
class NeverBehind:
    """`ours` to `other`: no rate is lower, in any case."""

    ours: str
    other: str

    def verdict(self, found: Found) -> Verdict:
        """The case in which it is lowest."""
        ratios = {
            case: times
            for case, rounds in found.items()
            if case != "half-load"  # each has a load of its own
            and (times := ratio(rounds.get(self.ours, ()), rounds.get(self.other, ())))
        }
        least = min(ratios, key=lambda case: ratios[case].value, default="no row")
        what = f"every row, the least is {least}: {self.ours} to {self.other}"
        return _judged(what, 1, False, ratios.get(least), None, True)


def _limit_of(ours: str) -> str:
    """The bare client that sends the same commands."""
    return f"limit-{CONTENDERS[ours].kind}"


def _judged(
    what: str,
    bound: float,
    is_most: bool,
    times: Middle | None,
    bare: Middle | None,
    fine: bool,
) -> Verdict:
    needed = f"{'at most' if is_most else 'at least'} {bound:g}"
    limit = "" if bare is None else f"{bare.value:.2f}"
    if times is None:
        return Verdict(what, needed, "", "not measured", limit)
    value = times.value
    reached = fine and (value <= bound if is_most else value >= bound)
    shown = f"{value:.2f} ({times.low:.2f} to {times.high:.2f})"
    said = "reached" if reached else "**NOT reached**"
    return Verdict(what, needed, shown, said, limit)


# To the bare client that sends the same commands: core, Pub/Sub.
OF_LIMITS = {
    "ping-pong-in-one": (0.85, 0.9),
    "senders-20-in-one": (0.8, 0.8),
    "group-100-in-one": (1.1, 1.1),
    "group-1000-in-one": (1.1, 1.1),
    "senders-20-in-two": (0.85, 0.75),
    "senders-200-in-two": (0.85, 0.75),
    "group-1000-in-two": (1.0, 0.9),
    "group-1000-in-four": (0.9, 0.85),
}


def _against_limits() -> Iterator[Target | Tail]:
    for case, bounds in OF_LIMITS.items():
        for kind, bound in zip(KINDS, bounds, strict=True):
            yield Target(case, kind, f"limit-{kind}", bound)
    for kind in KINDS:
        yield Target("sync", kind, f"limit-{kind}-sync", 0.9)
        yield Target("idle", kind, f"limit-{kind}", 1.15, "bytes", is_most=True)
        yield Tail("half-load", kind, 3)
    for case in ("senders-20-in-two", "group-1000-in-two", "size-64-in-two"):
        yield Target(case, "core", "limit-core", 1.1, "server", is_most=True)


def _against_nats() -> Iterator[Target]:
    rival = "channels_nats"
    for senders in (1, 20, 200):
        for kind, bound in zip(KINDS, (1.0, 1.8), strict=True):
            yield Target(
                f"senders-{senders}-in-two", f"{kind}-unconfirmed", rival, bound
            )
    for kind in KINDS:
        for place in ("two", "four"):
            yield Target(f"group-1000-in-{place}", kind, rival, 2)
        yield Target("readers-4", f"{kind}-both", rival, 0.7, once=True)


def _of_histories() -> Iterator[Target]:
    """With a history, to the same without."""
    for kind, bound in zip(KINDS, (0.8, 0.5), strict=True):
        yield Target("group-senders-20", f"{kind}-history", kind, bound)
        yield Target("joins", f"{kind}-history", kind, 1.2, "p50", is_most=True)


TARGETS: tuple[Target | Tail | NeverBehind, ...] = (
    *_against_limits(),
    *_against_nats(),
    *_of_histories(),
    *(NeverBehind(kind, f"channels_redis-{kind}") for kind in KINDS),
)


def losses(found: Found) -> Iterator[tuple[str, str, str, Middle]]:
    """Case, our layer, another of its kind or none, and the ratio, where we lose."""
    for case, rounds in found.items():
        if case == "half-load":
            continue  # each has a load of its own
        for ours in KINDS:
            for name in rounds:
                other = CONTENDERS[name]
                if other.is_ours or other.is_limit or other.kind not in ("", ours):
                    continue
                times = ratio(rounds.get(ours, ()), rounds[name])
                if times is not None and times.value < 1:
                    yield case, ours, name, times
