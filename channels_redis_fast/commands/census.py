"""Which other processes are silent, and whose members are sent to no more; no I/O."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from ..wire._fanout import bundle

_REMEMBERED = 10_000  # groups

Key = bytes | str


class Answer(NamedTuple):
    """What a heartbeat is told."""

    was_there: bool  # this process's own entry was
    was_pruned: bool  # others may have taken this process for dead
    judged: float  # the time (s), by Redis's clock, as of which the silent are
    evicted: int  # keys, since the server began
    about: bytes  # names what is said of the silent
    silent: dict[bytes, float] | None  # and when they beat last. None: as before
    dropped: list[bytes]  # whose entries were
    living: int  # processes that are not silent, with this one


class Census:
    """Which other processes are silent, as the last beat was told.

    `dead_after` (seconds): who is silent for longer is not sent to any more; the others
    are only not counted. A process of which nothing is known may live, and so may all
    when nothing was heard for `valid` seconds. Times are `time.monotonic()`'s.
    """

    def __init__(self, dead_after: float, valid: float) -> None:
        self.about = b""
        self.living = 0  # processes, as the last beat was told
        # By a group's shard and key: members to take out.
        self.removals: dict[tuple[int, Key], list[bytes]] = {}
        self._silent: dict[bytes, float] = {}
        self._dead: frozenset[bytes] = frozenset()
        self._dead_after = dead_after
        self._valid = valid
        self._until = 0.0
        self._clean: set[Key] = set()  # groups that have no members of the silent

    def learn(self, answer: Answer, now: float) -> None:
        """Takes the answer to a beat of `now`."""
        self.living = answer.living
        if answer.silent is not None:
            self._silent, self.about = answer.silent, answer.about
            self._clean.clear()
        limit = answer.judged - self._dead_after
        self._dead = frozenset(one for one, at in self._silent.items() if at <= limit)
        self._until = now + self._valid

    def is_known(self, now: float) -> bool:
        """Whether a beat was answered not long ago."""
        return now < self._until

    def may_have_silent(self, key: Key, now: float) -> bool:
        """Whether a group may have members of silent processes."""
        return bool(self._silent) and self.is_known(now) and key not in self._clean

    def silent_among(self, key: Key, members: list[bytes], now: float) -> list[bytes]:
        """Those members of a group whose processes are silent: they don't count."""
        if not self.may_have_silent(key, now):
            return []
        silent = _members_of(self._silent, members)
        if not silent:
            if len(self._clean) >= _REMEMBERED:
                self._clean.clear()
            self._clean.add(key)
        return silent

    def without_dead(
        self, index: int, key: Key, members: list[bytes], now: float
    ) -> list[bytes]:
        """Those to send to; the others are noted, to be taken out of the group."""
        if not self._dead:
            return members
        dead = _members_of(self._dead, self.silent_among(key, members, now))
        if not dead:
            return members
        self.removals[index, key] = dead
        return without(members, frozenset(dead))

    def take_removals(self) -> dict[tuple[int, Key], list[bytes]]:
        """What is to be taken out of groups, which counts as done then."""
        removals, self.removals = self.removals, {}
        return removals


def _members_of(ids: Container[bytes], members: list[bytes]) -> list[bytes]:
    """Those members that are channels of processes with these ids."""
    return [
        member
        for process, found in bundle(members).items()
        if process[process.rfind(b".") + 1 : -1] in ids
        for member in found
    ]


def without(members: list[bytes], excluded: frozenset[bytes]) -> list[bytes]:
    """The members of a group but for some."""
    if not excluded:
        return members
    return [member for member in members if member not in excluded]
