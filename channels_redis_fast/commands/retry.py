"""When a command that got an error is written again, and when the error is raised."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .command import Command
from .errors import Kind, is_demotion, kind_of
from .liveness import is_heartbeat
from .scripts import EVALSHA, is_repeatable, key_of, with_text

_PAUSE = 0.05  # seconds, then twice as long each time
_LONGEST_PAUSE = 0.5
# Nodes that send each other's callers back and forth are asked in no more haste.
_HOPS = 3
# How long (seconds) a server that never was a primary is taken for one that may be.
_STRANGER = 1.0


class Retry:
    """One call's command on its way through errors; both ways to run it ask here.

    `began` and `deadline` are `time.monotonic()`'s, of the whole call.
    """

    __slots__ = (
        "_hops",
        "_is_unknown",
        "_may_repeat",
        "_times",
        "began",
        "command",
        "deadline",
        "error",
    )

    def __init__(self, command: Command, began: float, deadline: float) -> None:
        self.command = command
        self.began = began
        self.deadline = deadline
        self.error: Exception | None = None  # the last one that it was tried again for
        self._times = 0
        self._hops = 0  # of the times, by a node that sent it elsewhere
        self._is_unknown = False  # the script was, already
        # Once is enough: a server that stays away must not hold its callers up.
        self._may_repeat = is_repeatable(command)

    def after(
        self,
        error: Exception,
        now: float,
        *,
        written: bool = True,
        stranger: bool = False,
        is_cluster: bool = False,
    ) -> float | None:
        """Seconds until the command is written again; None: raise what `error` is now.

        `written`: the command was; else there was no connection. `stranger`: nobody
        has seen the server as a primary. `is_cluster`: there are nodes to go to.
        """
        kind = kind_of(error)
        if kind is Kind.MOVED and not is_cluster:
            kind = Kind.FINAL  # a node of a Cluster that is configured as a server
        if kind is Kind.LOST and not written and is_demotion(self.error):
            kind = Kind.DEMOTED  # nothing was written: there may yet be a primary
        else:
            self.error = error
        pause = self._pause(kind)
        deadline = self.deadline
        if stranger and kind is Kind.DEMOTED:
            deadline = min(deadline, self.began + _STRANGER)
        self._times += 1
        return None if pause is None or now + pause >= deadline else pause

    def _pause(self, kind: Kind) -> float | None:
        if kind is Kind.UNKNOWN and self.command[0] is EVALSHA:
            # The first of many takes the text along for all, see `as_known`. If that
            # one went elsewhere, or was refused, each has it.
            if self._is_unknown:
                self.command = with_text(self.command)
            self._is_unknown = True
            return 0.0  # whatever came before; with the text this is no EVALSHA
        # What is no such call ran, but has to again after those that didn't.
        if kind in (Kind.UNKNOWN, Kind.MOVED):
            self._hops += 1
            if self._hops <= _HOPS:
                return 0.0
        if kind is Kind.LOST and self._may_repeat:
            self._may_repeat = False
            return 0.0
        if kind in (Kind.PASSING, Kind.DEMOTED, Kind.MOVED, Kind.UNKNOWN):
            return min(_PAUSE * 2.0 ** min(self._times, 10), _LONGEST_PAUSE)
        return None


def scan(pattern: bytes, cursor: bytes) -> Command:
    """Asks a server for more keys; `cursor`: of its last reply, b"" at first."""
    return (b"SCAN", cursor or b"0", b"MATCH", pattern, b"COUNT", b"1000")


class Sweep:
    """Deletes the keys of a shard that match a glob pattern, a portion at a time.

    It has so many `seconds` for each portion, as a call. All of it may run twice: after
    an error all is done again, until so many seconds after the portion before the first
    one.
    """

    def __init__(self, pattern: bytes, now: float, seconds: float) -> None:
        self.pattern = pattern
        self.began = now  # with its portion
        self._seconds = seconds
        self._retry: Retry | None = None

    @property
    def deadline(self) -> float:
        """When its portion is to be done (`time.monotonic()`)."""
        return self.began + self._seconds

    def scan(self, cursor: bytes) -> Command:
        """Asks a server for more keys."""
        return scan(self.pattern, cursor)

    def unlinks(self, keys: list[bytes]) -> list[Command]:
        """Deletes keys that were found; heartbeats stay, which are no messages."""
        return [(b"UNLINK", key) for key in keys if not is_heartbeat(key)]

    def get_on(self, now: float) -> None:
        """Begins the next portion."""
        self.began = now

    def after(self, error: Exception, now: float, **about: bool) -> float:
        """Seconds until all is done again; raises the error that stays."""
        unlink = (b"UNLINK", self.pattern)
        retry = self._retry or Retry(unlink, self.began, self.deadline)
        self._retry = retry
        # As if nothing had been written.
        pause = retry.after(error, now, written=False, **about)
        if pause is None:
            raise retry.error or error
        return pause


def not_overtaken(commands: list[Command], replies: Iterable[Any]) -> list[int]:
    """Which of the commands that failed keep their order when they are tried again.

    Not those that a later one for the same key overtook.
    """
    found: list[int] = []
    overtaken: set[Any] = set()
    outcomes = list(replies)
    for position in reversed(range(len(outcomes))):
        key = key_of(commands[position])
        if not isinstance(outcomes[position], Exception):
            overtaken.add(key)
        elif key not in overtaken:
            found.append(position)
    return found[::-1]
