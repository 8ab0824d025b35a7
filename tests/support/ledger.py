"""What became of each of many numbered messages, held against what was promised."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

ACCEPTED, UNDER_WAY, LEFT_OUT = "accepted", "under way", "over capacity"
# Errors after which it is certain that a message was not sent.
_NOT_SENT = frozenset(
    {"ChannelFull", "OutOfMemoryError", "ReadOnlyError", "ResponseError"}
)
_NEVER = 1 << 60

# A message: who sent it, and its number there.
Message = tuple[str, int]
Numbers = dict[str, int]  # by source


@dataclass
class Source:
    """One that sends numbered messages to one channel or group, one after the other."""

    name: str
    route: str  # "direct", "group" or "normal"
    # Of each message: UNDER_WAY, then ACCEPTED, or LEFT_OUT by a group_send in at least
    # one process, or the name of the error.
    outcomes: list[str] = field(default_factory=list)


@dataclass
class Addressee:
    """One that receives on a channel, and what came, in order.

    Those of one `line` get their messages through one key or connection, and lose
    them together.
    """

    line: str
    sources: list[Source]
    got: list[Message] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    newest: Numbers = field(default_factory=dict)
    gaps: list[int] = field(default_factory=list)  # told, after so many messages

    def note(self, message: Message, now: float) -> None:
        """A message came."""
        source, number = message
        self.got.append(message)
        self.times.append(now)
        self.newest[source] = max(number, self.newest.get(source, -1))

    def has_all(self, numbers: Numbers) -> bool:
        """Whether from each source this number came, or a later one."""
        return all(
            self.newest.get(source.name, -1) >= numbers[source.name]
            for source in self.sources
        )


@dataclass
class Outage:
    """A time in which messages may be lost: a connection broke, or a server died.

    Messages keep their order, so those in question have numbers after the last that
    came before it, and before the first that was sent and came when it was over.
    """

    last: list[Numbers]  # by addressee
    over: Numbers = field(default_factory=dict)  # the first that were sent afterwards


@dataclass(frozen=True)
class Promise:
    """What a fault may cost.

    `limits` has for each line how many messages an outage may lose. In `exempt`
    routes all that was sent during the outage may be lost; outside outages nothing.
    `repeats` is how many messages an outage may bring twice, but for `echoed` routes,
    where all may come again.
    """

    limits: dict[str, int]
    repeats: int = 0
    exempt: frozenset[str] = frozenset()
    echoed: frozenset[str] = frozenset()
    refusals: frozenset[str] = frozenset()
    order: bool = True
    gaps: int = 0  # that an outage may have each addressee told


@dataclass
class Verdict:
    """The counts. A message counts once for each line that it is for."""

    outages: int = 0
    sent: int = 0  # accepted, that is
    arrived: int = 0  # of these
    lost: int = 0
    bound: int = 0
    doubled: int = 0
    repeats: int = 0  # how many may be doubled
    reordered: int = 0
    gaps: int = 0  # that were told
    most_gaps: int = 0
    silence: float = 0.0  # the longest that somebody heard nothing (seconds)
    refused: Counter[str] = field(default_factory=Counter)  # sends, by error
    problems: list[str] = field(default_factory=list)


class Ledger:
    """The books of one fault."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}
        self.addressees: list[Addressee] = []
        self.outages: list[Outage] = []
        self.began = 0.0
        self.invented: list[object] = []

    def begin_outage(self) -> Outage:
        """From now on messages may be lost."""
        outage = Outage([dict(one.newest) for one in self.addressees])
        self.outages.append(outage)
        return outage

    def next(self) -> Numbers:
        """The first numbers that are not yet sent."""
        return {name: len(one.outcomes) for name, one in self.sources.items()}

    def verdict(self, promise: Promise) -> Verdict:
        """Counts, and says what is not as promised."""
        found = Verdict(len(self.outages))
        self._count_sent(found, promise)
        lost = self._lost()
        found.lost = sum(len(messages) for messages in lost.values())
        found.arrived = found.sent - found.lost
        self._judge_losses(found, promise, lost)
        for addressee in self.addressees:
            found.reordered += self._overtaken(addressee)
            times = [self.began, *(t for t in addressee.times if t > self.began)]
            gaps = [b - a for a, b in pairwise(times)]
            found.silence = max([found.silence, *gaps])
        doubled = self._doubled()
        found.doubled = doubled.total()
        found.repeats = promise.repeats * len(self.outages)
        kept = doubled.total() - sum(doubled[route] for route in promise.echoed)
        if kept > found.repeats:
            found.problems.append(f"{kept} messages came twice")
        self._judge_gaps(found, promise)
        if found.reordered and promise.order:
            found.problems.append(f"{found.reordered} messages were overtaken")
        if phantoms := sum(map(self._phantoms, self.addressees)):
            found.problems.append(f"{phantoms} messages were refused, and came")
        if self.invented:
            found.problems.append(f"never sent: {self.invented[:3]}")
        return found

    def _lines(self, source: Source) -> set[str]:
        return {one.line for one in self.addressees if source in one.sources}

    def _accepted(self, source: Source) -> set[Message]:
        outcomes = enumerate(source.outcomes)
        return {(source.name, n) for n, outcome in outcomes if outcome == ACCEPTED}

    def _count_sent(self, found: Verdict, promise: Promise) -> None:
        for source in self.sources.values():
            found.sent += len(self._accepted(source)) * len(self._lines(source))
            found.refused.update(source.outcomes)
        del found.refused[ACCEPTED]
        if wrong := found.refused.keys() - promise.refusals:
            found.problems.append(f"unexpected: {sorted(wrong)}")

    def _lost(self) -> dict[tuple[str, int, str], set[Message]]:
        """What was accepted and didn't come, by line, number of outage, and route.

        The number is -1 for what no outage accounts for.
        """
        lost: dict[tuple[str, int, str], set[Message]] = {}
        for index, addressee in enumerate(self.addressees):
            got = set(addressee.got)
            for source in addressee.sources:
                windows = list(enumerate(self._windows(index, source)))
                for message in self._accepted(source) - got:
                    n = message[1]
                    number = next((i for i, w in reversed(windows) if n in w), -1)
                    key = addressee.line, number, source.route
                    lost.setdefault(key, set()).add(message)
        return lost

    def _windows(self, index: int, source: Source) -> Iterator[range]:
        """The numbers that each outage may have cost an addressee."""
        got = sorted(n for name, n in self.addressees[index].got if name == source.name)
        for outage in self.outages:
            place = bisect_left(got, outage.over.get(source.name, _NEVER))
            first = got[place] if place < len(got) else _NEVER
            yield range(outage.last[index].get(source.name, -1) + 1, first)

    def _judge_losses(
        self,
        found: Verdict,
        promise: Promise,
        lost: dict[tuple[str, int, str], set[Message]],
    ) -> None:
        outside = sum(len(lost[key]) for key in lost if key[1] < 0)
        if outside:
            some = [sorted(lost[key])[:3] for key in lost if key[1] < 0]
            found.problems.append(f"{outside} lost and nothing was wrong: {some}")
        for number in range(len(self.outages)):
            for line, limit in promise.limits.items():
                kept = [lost.get((line, number, r), ()) for r in self._kept(promise)]
                missing = sum(map(len, kept))
                if missing > limit:
                    text = f"outage {number} cost {line} {missing}, not {limit} at most"
                    found.problems.append(text)
        found.bound = sum(promise.limits.values()) * len(self.outages)
        found.bound += sum(self._exempted(promise).values())

    def _judge_gaps(self, found: Verdict, promise: Promise) -> None:
        gaps, most = [len(one.gaps) for one in self.addressees], promise.gaps
        most *= len(self.outages)
        found.gaps, found.most_gaps = sum(gaps), most * len(gaps)
        if max(gaps) > most:
            found.problems.append(f"gaps were told {gaps} times, not {most} at most")

    def _kept(self, promise: Promise) -> Collection[str]:
        return {source.route for source in self.sources.values()} - promise.exempt

    def _exempted(self, promise: Promise) -> dict[tuple[str, str], int]:
        """How many messages of exempt routes were sent in outages, by line and source.

        Where a line's addressees were away for different times, the longest.
        """
        found: dict[tuple[str, str], int] = {}
        for index, one in enumerate(self.addressees):
            for source in one.sources:
                if source.route in promise.exempt:
                    windows = self._windows(index, source)
                    sent = (source.outcomes[w.start : w.stop] for w in windows)
                    count = sum(outcomes.count(ACCEPTED) for outcomes in sent)
                    pair = one.line, source.name
                    found[pair] = max(count, found.get(pair, 0))
        return found

    def _doubled(self) -> Counter[str]:
        """How often a message came to somebody of a line again, by route."""
        times: dict[str, Counter[Message]] = {}
        for addressee in self.addressees:
            times.setdefault(addressee.line, Counter())
            times[addressee.line] |= Counter(addressee.got)
        found: Counter[str] = Counter()
        for line in times.values():
            for (name, _), count in line.items():
                found[self.sources[name].route] += count - 1
        return found

    def _phantoms(self, addressee: Addressee) -> int:
        """Messages that came although their sends had said that they won't."""
        return sum(
            source.outcomes[n] in _NOT_SENT
            for source in addressee.sources
            if source.route != "group"  # which may have reached other processes
            for name, n in set(addressee.got)
            if name == source.name
        )

    def _overtaken(self, addressee: Addressee) -> int:
        """Accepted messages that came after a later one of their source."""
        highest: dict[str, int] = {}
        seen: set[Message] = set()
        found = 0
        for name, n in addressee.got:
            if (name, n) in seen or self.sources[name].outcomes[n] != ACCEPTED:
                continue
            seen.add((name, n))
            found += n < highest.get(name, -1)
            highest[name] = max(n, highest.get(name, -1))
        return found


class FollowersLedger(Ledger):
    """The books of those who follow a group: what they miss must have been told."""

    def _windows(self, index: int, source: Source) -> Iterator[range]:
        """The numbers that each gap may have cost an addressee."""
        one = self.addressees[index]
        for place in one.gaps:
            before, after = (
                [n for name, n in part if name == source.name]
                for part in (one.got[:place], one.got[place:])
            )
            yield range(max(before, default=-1) + 1, min(after, default=_NEVER))


_TITLES = (
    *("fault", "layer", "outages", "sent", "refused", "arrived"),
    *("lost (bound)", "doubled (bound)", "reordered", "gaps (bound)", "silent"),
)


def table(rows: Iterable[Iterable[str]]) -> list[str]:
    """What `columns` made of the verdicts, a line each."""
    lines = [_TITLES, *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if place < 2 else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def columns(fault: str, layer: str, found: Verdict) -> tuple[str, ...]:
    """One verdict as the texts of a line."""
    return (
        *(fault, layer, f"{found.outages}", f"{found.sent}"),
        *(f"{found.refused.total()}", f"{found.arrived}"),
        *(f"{found.lost} ({found.bound})", f"{found.doubled} ({found.repeats})"),
        *(f"{found.reordered}", f"{found.gaps} ({found.most_gaps})"),
        f"{found.silence:.2f} s",
    )
