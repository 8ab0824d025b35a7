"""The history of a group at Redis: what to say, and what the answers mean; no I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from redis import exceptions as errors

from .._settings import HistoryTable
from ..exceptions import UnreadableMessage
from ..types import BEGINNING, History, position_of
from ..wire.codec import Message, copier
from ..wire.placed import InGroup, PlacedCodec
from ..wire.positions import Position, read_id, read_placed
from ..wire.reserved import EXCLUDE, take_excluded
from .errors import value_of
from .history_scripts import APPEND, FORGET, SINCE
from .operations import Request
from .scripts import number

Kept = tuple[Message, Callable[[], Message], frozenset[str]]

_REMEMBERED = 1000  # groups
# No more goes into one command, which holds up the server as long as it runs.
_MOST = 500  # messages
_LARGEST = 1 << 20  # bytes


class Plan(NamedTuple):
    """What the commands of a group have in common."""

    shard: int
    name: bytes
    position: bytes
    history: bytes
    numbers: tuple[bytes, bytes, bytes]  # size, ttl, position_ttl


class Append(NamedTuple):
    """A message for a group's history: what stands before its position, and behind."""

    plan: Plan
    head: bytes
    tail: bytes


class AppendBatch:
    """Messages for one group's history that go into one command, and are published.

    By the command `verb`; b"": they aren't.
    """

    def __init__(self, verb: bytes) -> None:
        self._verb = verb
        self._appends: list[Append] = []
        self._size = 0  # bytes

    def add(self, append: Append) -> None:
        """Adds a message."""
        self._size += len(append.head) + len(append.tail)
        self._appends.append(append)

    @property
    def is_full(self) -> bool:
        """Whether another command is to take what comes."""
        return len(self._appends) >= _MOST or self._size >= _LARGEST

    def request(self) -> Request:
        """The command; the reply has two parts for each message."""
        plan = self._appends[0].plan
        parts = [part for _, head, tail in self._appends for part in (head, tail)]
        words = (*plan.numbers, self._verb, plan.name, *parts)
        return plan.shard, APPEND.on(plan.position, plan.history, *words)


def append_alone(append: Append, verb: bytes = b"") -> Request:
    """As a batch's, of one message."""
    batch = AppendBatch(verb)
    batch.add(append)
    return batch.request()


class Found(NamedTuple):
    """Where a group is, and what is kept of it, in order.

    Each message with its position, what makes copies of it, and who doesn't get it.
    """

    position: Position
    entries: list[tuple[Position, Kept]]


class HistoryCommands:
    """The commands of groups that have a history, by the rules of a `table`.

    `name_of` gives a group's name at Redis, which its keys carry as their tag, and
    `shard_of` the index of its shard.
    """

    def __init__(
        self,
        table: HistoryTable,
        prefix: str,
        codec: PlacedCodec,
        name_of: Callable[[str], bytes],
        shard_of: Callable[[str], int],
    ) -> None:
        self._table = table
        self._begin = prefix.encode()
        self._codec = codec
        self._name_of = name_of
        self._shard_of = shard_of
        self._plans: dict[str, Plan] = {}

    def has(self, group: str) -> bool:
        """Whether anything is kept of a group."""
        return self._table.lookup(group) is not None

    def rule(self, group: str) -> History:
        """What is kept of a group; raises `ValueError` if nothing is."""
        rule = self._table.lookup(group)
        if rule is None:
            raise ValueError(f"no pattern of the option `history` matches {group!r}")
        return rule

    def place(self, group: str, since: Any) -> Position | str | None:
        """The place that users name; "" if there is none; raises `TypeError`.

        It may come from a browser: whatever is no position of the group is no error.
        """
        if since is None or since == BEGINNING:
            return None if since is None else BEGINNING
        if not isinstance(since, str):
            raise TypeError(
                f"since must be a position (str) or None, not {since!r:.200}"
            )
        return read_placed(group, since) or ""

    def append(self, group: str, body: Any) -> Append:
        """A codec's body for a group's history; raises as `body` does."""
        plan = self._plan(group)
        return Append(plan, *self._codec.parts(body, plan.name))

    def appended(self, reply: Any) -> Position:
        """The position of the message; raises the error in its place."""
        return _position(value_of(reply))

    def appended_alone(self, group: str, body: Any, reply: Any) -> Found:
        """A body as it was appended, by the answer to that."""
        head, tail = self._codec.parts(body, self._name_of(group))
        return self.found(group, [reply[0], head + reply[0] + tail])

    def since(self, group: str, offset: int | None) -> Request:
        """Asks for a group's position, and what is kept of it after an offset."""
        plan = self._plan(group)
        size, _, position_ttl = plan.numbers
        after = b"" if offset is None else b"%d" % offset
        keys = plan.position, plan.history
        return plan.shard, SINCE.on(*keys, position_ttl, size, after)

    def forget(self, group: str) -> Request:
        """Drops a group's history."""
        plan = self._plan(group)
        return plan.shard, FORGET.on(plan.position, plan.history, plan.numbers[2])

    def found(self, group: str, reply: Any) -> Found:
        """What the answer to `since` or `forget` says; nothing that is unreadable."""
        entries = [self._entry(group, member) for member in reply[1:]]
        return Found(_position(reply), [entry for entry in entries if entry])

    def _entry(self, group: str, member: bytes) -> Any:
        name, codec = self._name_of(group), InGroup(self._codec, group)
        try:
            opened = codec.open(member, name)
            has_excluded = EXCLUDE in opened[1]
            excluded = take_excluded(opened[1]) if has_excluded else frozenset()
        except UnreadableMessage:
            return None
        without = EXCLUDE if has_excluded else None
        copy = copier(codec, member, name, opened[1], opened[2], without)
        place = position_of(opened[1])
        position = None if place is None else read_placed(group, place)
        return None if position is None else (position, (opened[1], copy, excluded))

    def _plan(self, group: str) -> Plan:
        plan = self._plans.get(group)
        if plan is None:
            if len(self._plans) >= _REMEMBERED:
                self._plans.clear()
            plan = self._plans[group] = self._made_plan(group, self.rule(group))
        return plan

    def _made_plan(self, group: str, rule: History) -> Plan:
        name = self._name_of(group)
        return Plan(
            self._shard_of(group),
            name,
            b"%b:position:{%b}" % (self._begin, name),
            b"%b:history:{%b}" % (self._begin, name),
            (number(rule.size), number(rule.ttl), number(rule.position_ttl)),
        )


def _position(reply: Any) -> Position:
    position = None
    if isinstance(reply, list) and reply and isinstance(reply[0], bytes):
        position = read_id(reply[0].decode("ascii", "replace"))
    if position is None:
        raise errors.InvalidResponse(f"no position: {reply!r:.200}")
    return position
