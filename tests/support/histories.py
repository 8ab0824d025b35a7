"""A group with a history, in plain Python: what its followers must get, and in order.

Each message has one place, for all who see it, and places follow each other as messages
were sent. A follower gets all from where it joined, each once, or is told of a gap for
which there is a cause. Joined anew, it may get once more what lay in its mailbox.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from channels_redis_fast.types import BEGINNING, POSITION, Page, Recovery
from channels_redis_fast.wire.positions import Position, read_placed
from support.model import Broken

LOG = "log"


def place(text: Any) -> Position:
    """A position of the group, in numbers."""
    found = read_placed(LOG, text)
    if found is None:
        raise Broken(f"{text!r} is no position")
    return found


@dataclass(eq=False)
class Said:
    """A message: when its call began, and who sent it in which order."""

    number: int
    era: int
    call: int
    actor: int
    is_sure: bool = False
    at: Position | None = None


@dataclass(eq=False)
class Follower:
    """A channel, and how far it may be.

    Of each joining a course has a place. It is at the first of them, and goes on from
    there or, when it has got what lay in its mailbox, from a later one.
    """

    name: Any
    owner: int
    courses: set[tuple[Position, ...]] = field(default_factory=set)
    # Whether it must get all that comes: nobody else discarded or flushed it.
    is_sure: bool = False

    def join(self, at: Position) -> None:
        """It goes on from another place."""
        self.courses = {(*one, at) for one in self.courses or {()}}
        self.is_sure = True

    def leave(self) -> None:
        """It gets nothing any more."""
        self.courses.clear()
        self.is_sure = False

    def is_at(self, position: Position) -> bool:
        """Whether it may have all, up to there."""
        return any(one[-1] == position for one in self.courses)


class Histories:
    """What is known of one group, of which `size` messages are kept."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.followers: list[Follower] = []
        self.era = 0  # so often the history began anew, at most
        self.places: list[str] = []  # to join from, as they were told
        self.tally: Counter[str] = Counter()
        self._said: dict[int, Said] = {}
        self._at: dict[Position, Said] = {}
        self._epochs: set[int] = set()

    # What is called, and what it says

    def begin(self, number: int, call: int, actor: int) -> Said:
        """A message is being sent."""
        said = self._said[number] = Said(number, self.era, call, actor)
        return said

    def begin_anew(self) -> None:
        """What was kept is dropped."""
        self.era += 1

    def told(self, text: str) -> Position:
        """Somebody was told a position."""
        self.places.append(text)
        position = place(text)
        self._epochs.add(position[0])
        if len(self._epochs) > self.era + 1:
            raise Broken(f"{self.era} causes of a new epoch, but {self._epochs}")
        return position

    def joined(self, follower: Follower, since: str | None, found: Recovery) -> None:
        """It goes on from where it asked to, if all that came since is kept."""
        position, replayed = self.told(found.position), found.replayed
        if not found.recovered and replayed:
            raise Broken(f"{found} from {since}")
        if since == BEGINNING and replayed != min(self.size, position[1]):
            raise Broken(f"all that is kept are {replayed} of {position}")
        if since is None and (not found.recovered or replayed):
            raise Broken(f"{found} from now on")
        asked, begin = (
            read_placed(LOG, since or ""),
            (position[0], position[1] - replayed),
        )
        is_kept = asked is not None and self._is_kept(asked, position)
        if is_kept > found.recovered or (asked and replayed and asked != begin):
            raise Broken(f"{found} from {since}")
        self.tally["replayed"] += replayed
        follower.join(begin)

    def _is_kept(self, since: Position, position: Position) -> bool:
        """Whether all between two places must be there."""
        return since[0] == position[0] and position[1] - since[1] <= self.size

    def read(self, page: Page) -> None:
        """A page of the history: without a hole, up to its position."""
        epoch, offset = self.told(page.position)
        first = offset + 1 - len(page.messages)
        for at, message in enumerate(page.messages, first):
            self._found((epoch, at), message)

    def got(self, follower: Follower, message: dict[str, Any]) -> None:
        """It got a message, or was told of a gap."""
        is_gap = message["type"] == "group.gap"
        position = self.told(message["position"] if is_gap else message[POSITION])
        if not is_gap:
            self._found(position, message)
        fits = self._is_gap if is_gap else _is_next
        before = follower.courses
        follower.courses = {
            (position, *course[number + 1 :])
            for course in before
            for number, at in enumerate(course)
            if fits(at, position)
        }
        if not follower.courses:
            raise Broken(f"{follower.name} got {message} at {before}")
        self.tally["gaps" if is_gap else "followed"] += 1

    def _is_gap(self, at: Position, position: Position) -> bool:
        """Whether something may be missing between: a later epoch, or too much."""
        if position[0] == at[0]:
            return position[1] > at[1] and len(self._said) - at[1] > self.size
        return position[0] > at[0]

    def _found(self, position: Position, message: dict[str, Any]) -> None:
        said = self._said.get(message["n"])
        if said is None or place(message[POSITION]) != position:
            raise Broken(f"{message} was not sent there, or isn't at {position}")
        if said.at not in (None, position) or self._at.get(position, said) is not said:
            raise Broken(f"{message} is at {said.at}, and there is {position}")
        said.at, self._at[position] = position, said

    # The end

    def check(self, page: Page) -> None:
        """All that was accepted since the history began is in it, in order."""
        self.read(page)
        now = [one for one in self._said.values() if one.era == self.era]
        sure, offset = sum(one.is_sure for one in now), place(page.position)[1]
        if not sure <= offset <= len(now):
            raise Broken(f"{sure} of {len(now)} were accepted, {offset} are there")
        if len(page.messages) != min(self.size, offset):
            raise Broken(f"{len(page.messages)} are kept of {offset}")
        missing = [one for one in now if one.is_sure and one.at is None]
        if missing and offset <= self.size:
            raise Broken(f"never appended: {missing}")
        self._check_order(one for one in self._said.values() if one.is_sure and one.at)

    def _check_order(self, sure: Iterable[Said]) -> None:
        """A call's messages come after those of the calls before, each actor's too."""
        placed = sorted(sure, key=lambda one: one.at or (0, 0))
        calls = [one.call for one in placed]
        actors: dict[tuple[int, int], list[int]] = {}
        for one in placed:
            actors.setdefault((one.call, one.actor), []).append(one.number)
        if calls != sorted(calls) or any(n != sorted(n) for n in actors.values()):
            raise Broken(f"out of order: {placed}")


def _is_next(at: Position, position: Position) -> bool:
    return position == (at[0], at[1] + 1)
