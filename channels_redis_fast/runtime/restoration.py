"""Groups after their server lost data: this process's members join again."""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Generator, Iterable
from typing import Any, Protocol

from redis import exceptions as errors

from .._logs import warn
from ..client.steps import Steps
from ..client.topology import Owns
from ..commands.command import Command
from ..commands.errors import may_pass
from ..commands.operations import Operations
from ..commands.scripts import with_text

Member = tuple[str, str]  # a group and a channel

# As `Steps`; returns how many memberships were made anew.
Repair = Generator[list[Command], list[Any], int]

# As `Steps`; returns for each member whether it is in its group, or None.
Asking = Generator[list[Command], list[Any], list[bool | None]]

# After a failover the new primary may lack what the old one was told last (seconds).
_RECENT = 30.0

# Redis's name for the history of its data: another after a restart or a failover.
_HISTORY = re.compile(rb"master_replid:(\S+)")


class Loss(enum.Enum):
    """What was lost while the connection lived."""

    ALL = "every key"
    SOME = "some keys, which the server evicted"
    PRUNED = "perhaps members, by others who took this process for dead"


class Joined(Protocol):
    """The memberships of this process, which calls change meanwhile."""

    def snapshot(self) -> list[Member]:
        """Those that are to stay."""

    def since(self, members: Iterable[Member], oldest: float) -> dict[str, list[str]]:
        """Of these, the channels that still are to stay, and joined then or later."""

    def leave_if_discarded(self, rejoined: dict[str, list[str]]) -> None:
        """Takes out those again that are not to stay any more."""


class Restoration:
    """Joins again what a server lost, before others use a connection to it.

    `longest` (seconds): how old a membership may be to be joined again.
    """

    def __init__(self, joined: Joined, operations: Operations, longest: float) -> None:
        self._joined = joined
        self._operations = operations
        self._longest = longest
        self._histories: dict[int, set[bytes]] = {}  # by shard: its nodes' own

    def steps(self, index: int, owns: Owns, anew: bool = False) -> Steps:
        """What to say to the server that a new connection of a shard leads to.

        The history of its data is the one that was known: nothing was lost, and what
        is gone was discarded or flushed by somebody, and is not resurrected; unless the
        server came by these keys since then, not knowing what was in them (`anew`). All
        gone: it lost its data, everything is joined again. Some there: only what is
        recent, which a failover may have lost. Raises errors that may pass.
        """
        (info,) = yield [(b"INFO", b"replication")]
        history = _history(info)
        known = self._histories.setdefault(index, set())
        if history in known and not anew:
            return
        ours = self._ours(index, owns)
        there = yield from self._ask(ours)
        yield from self._rejoin(self._gone(ours, there))
        if history is not None:
            known.add(history)

    def after_loss(self, index: int, owns: Owns, loss: Loss) -> Repair:
        """What to say to a server of a shard that lost data without a new connection.

        All is joined again, and nobody asks what is there: who joined since is, and
        others may be about to take out who is. Evicted were whole groups: one that has
        a member of this process was not, and who is gone from it was discarded.
        """
        lost = self._ours(index, owns)
        if loss is Loss.SOME:
            there = yield from self._ask(lost)
            members = zip(lost, there, strict=True)
            kept = {group for (group, _), is_there in members if is_there is not False}
            lost = [member for member in lost if member[0] not in kept]
        gone = self._joined.since(lost, time.monotonic() - self._longest)
        yield from self._rejoin(gone)
        return sum(map(len, gone.values()))

    def _ask(self, ours: list[Member]) -> Asking:
        """Which members are in their groups."""
        asked = yield [self._operations.ask(*member) for member in ours]
        return [_is_there(reply) for reply in asked]

    def _rejoin(self, gone: dict[str, list[str]]) -> Steps:
        # Without a lock, for which whole event loops would wait: one that restores
        # writes as slowly as its server reads.
        try:
            rejoined = yield [
                with_text(self._operations.rejoin(group, channels))
                for group, channels in gone.items()
            ]
            for reply in rejoined:
                _is_there(reply)
        finally:  # whatever came of it: some may have joined
            self._joined.leave_if_discarded(gone)

    def _ours(self, index: int, owns: Owns) -> list[Member]:
        operations = self._operations
        return [
            (group, channel)
            for group, channel in self._joined.snapshot()
            if operations.shard_of(group) == index and owns(operations.group_key(group))
        ]

    def _gone(
        self, ours: list[Member], there: list[bool | None]
    ) -> dict[str, list[str]]:
        """The channels that are to join again, by group."""
        oldest = time.monotonic() - (_RECENT if any(there) else self._longest)
        lost = (
            member
            for member, is_there in zip(ours, there, strict=True)
            if is_there is False
        )
        return self._joined.since(lost, oldest)


def _history(info: Any) -> bytes | None:
    """Which history of its data a server has; None where it doesn't say."""
    if isinstance(info, Exception):
        if may_pass(info):
            raise info
        return None  # not allowed
    found = _HISTORY.search(info)
    return found[1] if found else None


def _is_there(reply: Any) -> bool | None:
    """Whether a member is in its group; None: another node of a Cluster knows.

    A key that is no group needs no restoring.
    """
    if not isinstance(reply, Exception):
        return reply is not None
    if may_pass(reply):
        raise reply  # then it is not done
    if isinstance(reply, errors.AskError):
        return None
    warn("a membership can't be restored: %s", reply)
    return True
