"""The memberships of this process's channels: joined, refreshed, left."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ..commands.errors import is_connection_loss, may_pass
from ..commands.operations import Operations, Request
from .clearing import Clearing
from .restoration import Member, Restoration
from .upkeep import retry_at

# Of `group_expiry`: how old a membership gets before it is made new. A refresh that
# fails is tried again before the membership ends.
_REFRESH_AT = 1 / 3
# Of `group_expiry`: how often it is looked whether one got that old.
_LOOK_EVERY = 1 / 8
# So many that ended leave their groups at a time, of each shard.
_PORTION = 1000

RunAll = Callable[[list[Request]], Awaitable[list[Any]]]

# A command, and what notes that it is to be run again.
Chore = tuple[Request, Callable[[], None]]


class _Membership:
    """What is known of a channel in a group that it was added to."""

    __slots__ = ("adds", "doubts", "since")

    def __init__(self) -> None:
        # When it joined or was last refreshed. None: it should not be in the group but
        # may be: neither restored nor refreshed, and left when the channel ends.
        self.since: float | None = None
        self.adds = 0  # calls that added it
        self.doubts = 0  # of those: under way, or of unknown outcome


class Memberships:
    """Which of this process's channels joined which groups, and when.

    What another process made for our channels is not known here, and not ours to
    restore. Times are this process's own. Whoever calls, in whatever way, looks whether
    `tend` is due: no event loop needs to last for it.
    """

    def __init__(
        self, operations: Operations, group_expiry: float, refresh: bool
    ) -> None:
        self._operations = operations
        self._group_expiry = group_expiry
        self._refresh = refresh
        # Reentrant: a signal handler may call the layer from within.
        self._lock = threading.RLock()
        # By group, by channel: all that Redis may have.
        self._known: dict[str, dict[str, _Membership]] = {}
        self.groups_of: dict[str, set[str]] = {}  # by channel; to be read only
        # By shard, by group: channels that ended, not yet taken out.
        self._left: dict[int, dict[str, set[str]]] = {}
        self._look_at = time.monotonic() + _LOOK_EVERY * group_expiry
        self._not_before = 0.0
        longest = math.inf if refresh else group_expiry
        self.restoration = Restoration(self, operations, longest)
        look = functools.partial(looking, self)
        self.clearing = Clearing(look, operations, self._known)

    def __len__(self) -> int:
        return sum(map(len, list(self._known.values())))

    @contextmanager
    def joining(self, group: str, channel: str) -> Iterator[None]:
        """While a call adds a channel: it is in the group; on an error it may be."""
        with self._lock:
            membership = self._find(group, channel) or self._make(group, channel)
            is_new, membership.since = membership.since is None, time.monotonic()
            membership.doubts += 1
            membership.adds += 1
            turn = membership.adds
        try:
            yield
        except Exception:
            with self._lock:
                if is_new and membership.adds == turn:
                    membership.since = None
            raise
        with self._lock:
            membership.doubts -= 1

    @contextmanager
    def leaving(self, group: str, channel: str) -> Iterator[None]:
        """While a call takes a channel out of a group; on an error it still is in it.

        Calls count in their order. Redis may see those at the same time in another.
        """
        with self._lock:
            membership = self._find(group, channel)
            turn = membership.adds if membership else 0
            is_sure = membership is not None and not membership.doubts
        yield
        with self._lock:
            if membership is None or membership is not self._find(group, channel):
                return
            if membership.adds == turn:
                membership.since = None
                if is_sure:
                    self._forget(group, channel)

    def end(self, channel: str) -> None:
        """Forgets a channel that ended; `tend` takes it out of its groups."""
        with self._lock:
            for group in list(self.groups_of.get(channel, ())):
                self._forget(group, channel)
                self._leave(group, (channel,))

    @property
    def refreshes_due(self) -> bool:
        """Whether `tend` may have something to do."""
        now = time.monotonic()
        is_due = now >= self._not_before and (bool(self._left) or now >= self._look_at)
        return is_due or self.clearing.is_due

    async def tend(
        self, run_all: RunAll, is_down: Callable[[int], bool] = lambda index: False
    ) -> bool:
        """Takes channels that ended out of their groups, and refreshes what got old.

        What Redis was not heard to have done is due again, after a while. Nobody leaves
        a group of a shard, by index, that `is_down`. Whether it should be called again
        at once: so many ended. (Refreshes may be due again already, for ever.)
        """
        if self.clearing.is_due:
            await self.clearing.look(run_all)
        began = time.monotonic()
        with self._lock:
            chores = [*self._leaves(is_down), *self._refreshes(began)]
        if not chores:
            return False
        undone = [note for _, note in chores]
        try:
            replies = await run_all([request for request, _ in chores])
            undone = [
                note
                for note, reply in zip(undone, replies, strict=True)
                if is_connection_loss(reply) or may_pass(reply)
            ]
            if undone:
                self._not_before = retry_at(began)
        finally:  # cancelled, it is due again at once: the end of a loop comes to it
            with self._lock:
                for note in undone:
                    note()
        return bool(self._left) and not undone

    def clear(self) -> None:
        """Forgets all."""
        with self._lock:
            self._known.clear()
            self.groups_of.clear()
            self._left.clear()

    # What restoring them needs

    def shards(self) -> set[int]:
        """The indexes of the shards where they are."""
        return set(map(self._operations.shard_of, list(self._known)))

    def snapshot(self) -> list[Member]:
        """Those that are to stay."""
        with self._lock:
            return [
                (group, channel)
                for group, members in list(self._known.items())
                for channel, membership in list(members.items())
                if membership.since is not None
            ]

    def since(self, members: Iterable[Member], oldest: float) -> dict[str, list[str]]:
        """Of these, the channels that still are to stay, and joined then or later."""
        found: dict[str, list[str]] = {}
        with self._lock:
            for group, channel in members:
                membership = self._find(group, channel)
                since = membership.since if membership else None
                if since is not None and since >= oldest:
                    found.setdefault(group, []).append(channel)
        return found

    def leave_if_discarded(self, rejoined: dict[str, list[str]]) -> None:
        """What was discarded meanwhile, over other connections, is to leave again."""
        with self._lock:
            for group, channels in rejoined.items():
                for channel in channels:
                    membership = self._find(group, channel)
                    if membership is None or membership.since is None:
                        self._leave(group, (channel,))

    def _leaves(self, is_down: Callable[[int], bool]) -> list[Chore]:
        """The commands that take out who ended, a portion; noted as done."""
        chores: list[Chore] = []
        for index in [index for index in self._left if not is_down(index)]:
            left, room = self._left.pop(index), _PORTION
            while left and room:
                group, channels = left.popitem()
                some = [channels.pop() for _ in range(min(room, len(channels)))]
                room -= len(some)
                if channels:
                    left[group] = channels
                if some:  # else all joined again
                    note = functools.partial(self._leave_later, group, some)
                    chores.append((self._operations.leave(group, *some), note))
            if left:
                self._left[index] = left
        return chores

    def _leave(self, group: str, channels: Iterable[str]) -> None:
        """Notes who is to be taken out of a group."""
        left = self._left.setdefault(self._operations.shard_of(group), {})
        left.setdefault(group, set()).update(channels)

    def _leave_later(self, group: str, channels: list[str]) -> None:
        for channel in channels:
            membership = self._find(group, channel)
            if membership is None or membership.since is None:  # else it joined again
                self._leave(group, (channel,))

    def _refreshes(self, now: float) -> list[Chore]:
        """The commands that make new what got old, if it is time; noted as done."""
        if now < self._look_at:
            return []
        self._look_at = now + _LOOK_EVERY * self._group_expiry
        limit = now - _REFRESH_AT * self._group_expiry
        found: list[Chore] = []
        for group, members in list(self._known.items()) if self._refresh else ():
            old = {
                channel: membership
                for channel, membership in list(members.items())
                if membership.since is not None and membership.since < limit
            }
            for membership in old.values():
                membership.since = now
            if old:
                note = functools.partial(self._refresh_later, list(old.values()), limit)
                found.append((self._operations.refresh(group, list(old)), note))
        return found

    def _refresh_later(self, old: list[_Membership], limit: float) -> None:
        self._look_at = 0.0
        for membership in old:
            if membership.since is not None:
                membership.since = min(membership.since, limit - 1.0)

    def _find(self, group: str, channel: str) -> _Membership | None:
        return self._known.get(group, {}).get(channel)

    def _make(self, group: str, channel: str) -> _Membership:
        membership = self._known.setdefault(group, {})[channel] = _Membership()
        self.groups_of.setdefault(channel, set()).add(group)
        if self._left:
            left = self._left.get(self._operations.shard_of(group), {})
            left.get(group, set()).discard(channel)
        return membership

    def _forget(self, group: str, channel: str) -> None:
        members = self._known[group]
        del members[channel]
        if not members:
            del self._known[group]
        groups = self.groups_of[channel]
        groups.discard(group)
        if not groups:
            del self.groups_of[channel]


def looking(memberships: Memberships, group: str) -> Callable[[set[str]], None]:
    """What forgets who isn't in a group any more: it is told who is.

    Called before Redis is asked that: who joins meanwhile stays.
    """
    with memberships._lock:
        known = memberships._known.get(group, {}).items()
        turns = {name: one.adds for name, one in known if not one.doubts}

    def forget_all_but(there: set[str]) -> None:
        with memberships._lock:
            for channel in turns.keys() - there:
                found = memberships._find(group, channel)
                if found is not None and found.adds == turns[channel]:
                    memberships._forget(group, channel)

    return forget_all_but
