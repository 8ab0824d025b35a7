"""The messages of one group in the order of their positions; no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from ..wire.positions import Position

T = TypeVar("T")

NOWHERE: Position = 0, 0


# What comes next: a position and its item, or, of a gap, where it ends and None. What
# came up to that position, and was not told, is lost.
Step = tuple[Position, T | None]


class Sequencer(Generic[T]):
    """Takes what comes in any order, once or often, and gives each item once, in order.

    `last` is the position up to which it gave them: `NOWHERE` until a `fill`. What
    comes too early waits, while there is a `hole`, for what a `fill` brings. The newest
    `size` items stay, for those who come later.
    """

    def __init__(self, size: int) -> None:
        self.last = NOWHERE
        self._size = size
        self._kept: dict[int, T] = {}  # by offset: those up to `last`, without a hole
        self._early: dict[Position, T] = {}
        self._head = NOWHERE  # where Redis is known to be

    @property
    def has_hole(self) -> bool:
        """Whether something waits for what is missing before it, or is known of."""
        last, head = self.last, self._head
        if not self._early and head[0] == last[0]:
            return head > last
        return last != NOWHERE and (bool(self._early) or head[0] != 0)

    def take(self, position: Position, item: T) -> list[Step[T]]:
        """Takes what came; the steps that follow from it."""
        last = self.last
        if last[0] == position[0] and position[1] <= last[1]:
            return []  # it came before
        if position == (last[0], last[1] + 1) and not self._early:
            self.last, self._kept[position[1]] = position, item
            if len(self._kept) > self._size:
                self.trim()
            return [(position, item)]
        self._early[position] = item
        steps = self._drain()
        if self._early and len(self._early) > self._size:
            del self._early[min(self._early)]  # Redis keeps no more, and is asked again
        self.trim()
        return steps

    @property
    def waits(self) -> frozenset[Position]:
        """The positions of what waits."""
        return frozenset(self._early)

    def fill(
        self,
        position: Position,
        found: Iterable[tuple[Position, T]],
        after: int,
        waited: frozenset[Position] = frozenset(),
    ) -> list[Step[T]]:
        """Takes what Redis keeps after an offset, up to the group's position.

        What `waited` when it was asked, and is after that, is no message of this group.

        The steps that follow from it: what is missing then is gone. More is kept than
        `size` until `trim`, for those who need the oldest of it.
        """
        self._head = position
        if self.is_elsewhere and after > 0:
            return []  # all of the other epoch is to be asked for
        items = {at[1]: item for at, item in found if at[0] == position[0]}
        steps = self._bridge(position, items)
        self._merge(position[0], items)
        steps += self._drain()
        while self._is_before(position) and self.last[1] >= after:
            steps += [self._jump(position), *self._drain()]
        self._early = {
            at: item
            for at, item in self._early.items()
            if self._is_ahead(at) and (at not in waited or at <= position)
        }
        return steps

    @property
    def is_elsewhere(self) -> bool:
        """Whether Redis is known to be in another epoch, whose begin isn't known."""
        return self.last != NOWHERE and self.last[0] != self._head[0] != 0

    def after(self, position: Position) -> list[tuple[Position, T]] | None:
        """The items between a position and `last`; None: not all of them are here."""
        last = self.last
        is_here = position[0] == last[0] and self.begin[1] <= position[1] <= last[1]
        if not is_here:
            return None
        offsets = range(position[1] + 1, last[1] + 1)
        return [((last[0], offset), self._kept[offset]) for offset in offsets]

    @property
    def begin(self) -> Position:
        """The position before the oldest item that is kept."""
        epoch, offset = self.last
        return epoch, offset - len(self._kept)

    @property
    def is_full(self) -> bool:
        """Whether no more is kept anywhere."""
        return self.begin[1] == 0 or len(self._kept) >= self._size

    def trim(self) -> None:
        """Lets the oldest items go, over `size`."""
        end = self.last[1] - self._size + 1
        for offset in range(self.begin[1] + 1, end):
            del self._kept[offset]

    def drop_kept(self) -> None:
        """Lets all items go that were given."""
        self._kept = {}

    # Steps

    def _drain(self) -> list[Step[T]]:
        """Gives what isn't too early any more."""
        steps: list[Step[T]] = []
        while self._early:
            position = self.last[0], self.last[1] + 1
            if position not in self._early:
                break
            item = self._kept[position[1]] = self._early.pop(position)
            self.last = position
            steps.append((position, item))
        return steps

    def _bridge(self, position: Position, items: dict[int, T]) -> list[Step[T]]:
        """Begins where Redis is, or goes there over a gap, if there is one."""
        if self.last == NOWHERE:
            self.last = position
        elif self.is_elsewhere and self._connects((position[0], 0), position, items):
            self._kept, self.last = {}, (position[0], 0)
            return [(self.last, None)]  # and all of the other epoch follows
        elif self.is_elsewhere or not self._connects(self.last, position, items):
            return [self._jump(position)]
        return []

    def _connects(self, at: Position, position: Position, items: dict[int, T]) -> bool:
        """Whether what comes after a place is here, if there is anything."""
        after = at[0], at[1] + 1
        return after > position or after[1] in items or after in self._early

    def _jump(self, position: Position) -> Step[T]:
        """Goes on before the first item that came, or at a position at the latest.

        What Redis keeps of the time before is no more than a part of what is missing.
        """
        epoch = position[0]
        waiting = (at[1] for at in self._early if at[0] == epoch)
        self._kept = {}
        self.last = epoch, min(min(waiting, default=position[1] + 1) - 1, position[1])
        return self.last, None

    def _merge(self, epoch: int, items: dict[int, T]) -> None:
        """Puts items before those that are kept, or to those that wait."""
        last, begin = self.last[1], self.begin[1]
        for offset, item in items.items():
            if offset > last:
                self._early.setdefault((epoch, offset), item)
        while begin in items:
            self._kept[begin] = items[begin]
            begin -= 1

    def _is_before(self, position: Position) -> bool:
        return self.last[0] == position[0] and self.last[1] < position[1]

    def _is_ahead(self, position: Position) -> bool:
        return position[0] == self.last[0] and position[1] > self.last[1]
