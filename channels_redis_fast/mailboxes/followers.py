"""The channels of this process that follow a group, each from position to position."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable
from time import monotonic
from typing import NamedTuple

from ..types import BEGINNING
from ..wire.codec import Message
from ..wire.positions import Position, placed
from .registry import LocalChannels
from .sequencer import NOWHERE, Sequencer, Step

# A message of a history, what makes copies of it, and the channels that it isn't for.
Item = tuple[Message, Callable[[], Message], frozenset[str]]


class Answer(NamedTuple):
    """Where a channel that joined begins, and how much it gets of what came before."""

    position: Position
    recovered: bool
    replayed: int


class Question(NamedTuple):
    """What Redis is asked for: messages after an offset, None: none; and by whom.

    What `waits` then came before, so that Redis knows of it. So many `answers` to other
    questions had come.
    """

    answers: int
    after: int | None
    waits: frozenset[Position]
    joining: list[Joining]
    lacking: list[str]


class Joining:
    """A channel that is to follow a group from a place.

    The place: after a position; `BEGINNING`: with all that is kept; None: from now on;
    "": at one that nobody knows.
    """

    def __init__(self, channel: str, place: Position | str | None) -> None:
        self.channel = channel
        self.place = place
        self.answer: Answer | None = None
        self.has_left = False  # it gets an answer, and nothing else
        self.began = monotonic()


class Followers:
    """Puts each message of a group into the mailboxes of those who follow it, in order.

    A mailbox without room falls behind, and gets the rest when it has. Each channel is
    told once, by a message, of what it can't get any more. Who joins more than `ttl`
    seconds after the last message gets what Redis still has.
    """

    def __init__(
        self, group: str, size: int, mailboxes: LocalChannels, ttl: float = math.inf
    ) -> None:
        self.group = group
        self._ttl = ttl
        self.names: set[str] = set()
        self.asked_at = monotonic()  # Redis, for what it keeps
        self.active_at = monotonic()
        self.is_unsure = False  # Redis is to be asked at once
        self.joining: list[Joining] = []
        self._sequencer: Sequencer[Item] = Sequencer(size)
        self._offers = mailboxes.offers
        self._answers = 0  # of Redis
        self._told = self._hole_after = NOWHERE
        self._hole_since = 0.0
        self._current: dict[str, None] = {}  # those who were told so much
        self._apart: dict[str, Position] = {}  # those who were told less
        self._gone: dict[str, Position] = {}  # of those: what they lack isn't here

    def __len__(self) -> int:
        return len(self.names) + len(self.joining)

    # What came

    def take(
        self, position: Position, item: Item, here: asyncio.AbstractEventLoop | None
    ) -> bool:
        """Takes a message that came; `here`: the running loop. Whether all have all."""
        self.active_at = monotonic()
        self._tell(self._sequencer.take(position, item), here)
        if not self._sequencer.has_hole:
            return not (self.is_unsure or self._apart)
        if self._hole_after != self._told:
            self._hole_after, self._hole_since = self._told, self.active_at
        return False

    def fill(
        self,
        question: Question,
        position: Position,
        found: Iterable[tuple[Position, Item]],
        here: asyncio.AbstractEventLoop | None,
    ) -> bool:
        """Takes what Redis keeps, by a question; who asked that has an answer then.

        False: Redis is to be asked once more, as it is in another epoch, or as another
        question's answer, which may be newer, came first.
        """
        if question.answers != self._answers:
            return False
        self._answers += 1
        self.is_unsure = False
        after, waits = question.after or 0, question.waits
        self._tell(self._sequencer.fill(position, found, after, waits), here)
        if self.is_elsewhere:
            return False
        for joining in question.joining:
            if joining in self.joining:
                self._answer(joining, here, is_last=True)
        for channel in question.lacking:
            if channel in self._gone:
                self._catch_up(channel, here, is_last=True)
        self._sequencer.trim()
        return True

    def question(self) -> Question:
        """What Redis is to be asked."""
        after, waits = self._wants(), self._sequencer.waits
        joining, lacking = list(self.joining), list(self._gone)
        return Question(self._answers, after, waits, joining, lacking)

    def _wants(self) -> int | None:
        last = self._sequencer.last
        if self.is_elsewhere:
            return 0
        offsets = [last[1]] * (last != NOWHERE)
        for place in [*(one.place for one in self.joining), *self._gone.values()]:
            if place == BEGINNING:
                offsets.append(0)
            elif isinstance(place, tuple):
                offsets.append(place[1])
        return min(offsets, default=None)

    @property
    def has_hole(self) -> bool:
        """Whether something waits for what is missing before it."""
        return self._sequencer.has_hole

    @property
    def is_elsewhere(self) -> bool:
        """Whether Redis is known to have begun anew, and not yet what it has."""
        return self._sequencer.is_elsewhere

    def is_hole_old(self, seconds: float) -> bool:
        """Whether there is a hole, and has been for so long."""
        return self.has_hole and monotonic() - self._hole_since >= seconds

    @property
    def is_settled(self) -> bool:
        """Whether all have all."""
        return not (self.has_hole or self.is_unsure or self._apart)

    # Who follows

    def join(self, joining: Joining, here: asyncio.AbstractEventLoop | None) -> None:
        """Begins to answer; without an answer then, Redis is to be asked.

        From now on the channel gets what comes in its order, and in no other way.
        """
        if monotonic() - self.active_at > self._ttl and not self._apart:
            self._sequencer.drop_kept()
        self.joining.append(joining)
        self.names.add(joining.channel)
        self._answer(joining, here, is_last=False)

    def leave(self, channel: str) -> None:
        """A channel follows no more, and doesn't begin to."""
        for joining in self.joining:
            joining.has_left = joining.has_left or joining.channel == channel
        self._forget(channel)

    def catch_up(self, here: asyncio.AbstractEventLoop | None) -> bool:
        """Gives those who fell behind what they have room for; whether some lack it."""
        for channel in filter(self._offers.has_room, list(self._apart)):
            self._catch_up(channel, here, is_last=False)
        return bool(self._gone)

    # Steps

    def _tell(
        self, steps: list[Step[Item]], here: asyncio.AbstractEventLoop | None
    ) -> None:
        for position, item in steps:
            names = self._current
            full = self._put(names, position, item, here) if names else ()
            for channel in full:
                del names[channel]
                self._apart[channel] = self._told
            self._told = position
            for channel in [one for one, at in self._apart.items() if at == position]:
                self._meet(channel)
        self._told = self._sequencer.last

    def _put(
        self,
        names: Collection[str],
        position: Position,
        item: Item | None,
        here: asyncio.AbstractEventLoop | None,
    ) -> list[str]:
        """Puts a message, or of a gap, into mailboxes; those that have no room."""
        if item is not None:
            message, copy, excluded = item
            if excluded:
                names = [name for name in names if name not in excluded]
            return self._offers.offer(names, message, copy, here)
        place = placed(self.group, position)
        gap = {"type": "group.gap", "group": self.group, "position": place}
        return self._offers.offer(names, gap, gap.copy, here)

    def _meet(self, channel: str) -> None:
        """One who was told as much as the others goes on with them."""
        del self._apart[channel]
        self._gone.pop(channel, None)
        self._current[channel] = None

    def _answer(
        self, joining: Joining, here: asyncio.AbstractEventLoop | None, is_last: bool
    ) -> None:
        """Answers from what is here; if not all is, only if it `is_last`."""
        place, last = joining.place, self._sequencer.last
        if last == NOWHERE:
            return
        if place is None:
            place = last
        elif place == BEGINNING and (is_last or self._sequencer.is_full):
            place = self._sequencer.begin
        items = self._sequencer.after(place) if isinstance(place, tuple) else None
        if items is None and not is_last:
            return
        at = place if items is not None and isinstance(place, tuple) else last
        joining.answer = Answer(last, items is not None, len(items or ()))
        self.joining.remove(joining)
        if joining.has_left:
            return
        self._forget(joining.channel)
        self.names.add(joining.channel)
        self._apart[joining.channel] = at
        self._catch_up(joining.channel, here, is_last=False)

    def _forget(self, channel: str) -> None:
        self.names.discard(channel)
        self._current.pop(channel, None)
        self._apart.pop(channel, None)
        self._gone.pop(channel, None)

    def _catch_up(
        self, channel: str, here: asyncio.AbstractEventLoop | None, is_last: bool
    ) -> None:
        """Gives a channel what comes next for it, as long as it has room."""
        at = self._apart[channel]
        self._gone.pop(channel, None)
        items = self._sequencer.after(at)
        if items is None:
            if not is_last:
                self._gone[channel] = at
                return
            at = self._sequencer.begin
            if self._put([channel], at, None, here):
                return  # the gap is told when it has room
            items = self._sequencer.after(at) or []
        for position, item in items:
            if self._put([channel], position, item, here):
                break
            at = position
        self._apart[channel] = at
        if at == self._told:
            self._meet(channel)
