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
from .operations import Request
from .scripts import Script, number

# KEYS: position, history (a stream whose ids are the positions). The position's value:
# 8 digits of the server process's id, the position, seconds and microseconds of the
# last message.
_HEAD = """\
local call = redis.call
local was, time = call('GET', KEYS[1]), call('TIME')
local process, epoch, offset
if was then
    process, epoch = string.sub(was, 1, 8), string.sub(was, 9, 21)
    offset = tonumber(string.sub(was, 23, 34))
end
"""

# Who this server process is; refused, nobody.
_PROCESS = """\
    local info = redis.pcall('INFO', 'server')
    local run_id = 'run_id:(%x%x%x%x%x%x%x%x)'
    local here = type(info) == 'string' and string.match(info, run_id)
"""

# An epoch is later than all that were here.
_BEGIN = """\
        local last = call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
        local former = tonumber(epoch or 0)
        if last then
            former = math.max(former, tonumber(string.match(last[1], '^%d+')))
        end
        local now = math.floor(time[1] * 1000 + time[2] / 1000)
        epoch = string.format('%013.0f', math.max(now, former + 1))
        process, offset = here or process or '00000000', 0
        call('UNLINK', KEYS[2])
"""

_NOTE = """\
local id = epoch .. string.format('-%012.0f', offset)
local value = process .. id .. ' ' .. time[1] .. ' ' .. time[2]
"""

# ARGV: what stands before the position in a message, and what behind, size (messages),
# ttl and position_ttl (seconds), the command and the name to publish with, or ''.
#
# Offsets are contiguous in an epoch. A new one begins where it can't be known that they
# are: the position is gone, or a server process that began later (after a restart or a
# failover) may lack messages which others have seen. It is asked who it is unless the
# last message is so new that no failover fits in between; and as little as possible is
# done for each message: what Lua does costs more than the commands.
APPEND = Script(
    _HEAD
    + """\
local is_sure = false
if was then
    local seconds = time[1] - string.sub(was, 36, 45)
    local since = seconds * 1000000 + time[2] - string.sub(was, 47)
    is_sure = since >= 0 and since <= 10000
end
if not is_sure then
"""
    + _PROCESS
    + """\
    if not was or (here and here ~= process) then
"""
    + _BEGIN
    + """\
    end
end
offset = offset + 1
"""
    + _NOTE
    + """\
call('SET', KEYS[1], value, 'EX', ARGV[5])
local message = ARGV[1] .. id .. ARGV[2]
call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], id, 'm', message)
call('EXPIRE', KEYS[2], ARGV[4])
if ARGV[6] == '' then return {id, 0} end
return {id, call(ARGV[6], ARGV[7], message)}
""",
    keys=2,
)

# ARGV: position_ttl (seconds), size (messages), the offset after which messages are
# asked for, or ''. The position, which lives on, and the newest messages of its epoch.
SINCE = Script(
    _HEAD
    + """\
if not was then
"""
    + _PROCESS
    + _BEGIN
    + """\
end
"""
    + _NOTE
    + """\
if not was then call('SET', KEYS[1], value, 'EX', ARGV[1]) return {id} end
call('EXPIRE', KEYS[1], ARGV[1])
local found = {id}
if ARGV[3] == '' then return found end
local first = math.max(tonumber(ARGV[3]), offset - tonumber(ARGV[2])) + 1
if first > offset then return found end
local from = epoch .. string.format('-%012.0f', first)
for _, entry in ipairs(call('XRANGE', KEYS[2], from, id)) do
    found[#found + 1] = entry[2][2]
end
return found
""",
    keys=2,
    repeatable=True,
)

# ARGV: position_ttl (seconds). Drops what is kept; the position of the new epoch.
FORGET = Script(
    _HEAD
    + _PROCESS
    + _BEGIN
    + _NOTE
    + """\
call('SET', KEYS[1], value, 'EX', ARGV[1])
return {id}
""",
    keys=2,
)


Append = Callable[[bytes], Request]
Kept = tuple[Message, Callable[[], Message], frozenset[str]]

_REMEMBERED = 1000  # groups


class Plan(NamedTuple):
    """What the commands of a group have in common."""

    shard: int
    name: bytes
    position: bytes
    history: bytes
    numbers: tuple[bytes, bytes, bytes]  # size, ttl, position_ttl


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
        """Appends a codec's body to a group's history, and publishes it by a command.

        The command (b"": none) is given to what is returned. Raises as `body` does.
        """
        plan = self._plan(group)
        head, tail = self._codec.parts(body, plan.name)

        def request(verb: bytes) -> Request:
            command = APPEND.on(
                plan.position, plan.history, head, tail, *plan.numbers, verb, plan.name
            )
            return plan.shard, command

        return request

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
