"""Who is alive: what a heartbeat says to Redis, and what the answers mean; no I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgpack

from .._settings import Settings
from .census import Answer, Census
from .command import Command
from .scripts import CLOCK, Script, number

# What the keys are named after, as those of a group are: their tag and their shard.
_TAG = "processes"
_KEY = re.compile(rb":(alive|stats):\{processes\d*\}$")
# In front of the id of who beats only when it is called: silent, it may well live.
_IRREGULAR = b"~"
_PORTION = 500  # members that one command takes out

# How long nothing may be heard, in units of `liveness`. Three beats are missed before
# somebody is silent. When nobody beat for a while Redis was away, and all get time to
# beat again. Who missed beats himself forgets what he was told of others.
_PERIOD = 1 / 3
_OUTAGE = 1 / 2
_GRACE = 4 / 3
_KNOWN = 2 / 3
_DEAD = 4

# As of when all are judged. After an outage ("!outage": when it was noticed) that is
# when somebody was last heard before it ("!before"), until all had time to beat.
_JUDGED = """\
local judged = now
local outage = call('ZSCORE', KEYS[1], '!outage')
if outage and now - outage < grace then
    judged = tonumber(call('ZSCORE', KEYS[1], '!before')) or now
end
"""

# KEYS: heartbeats: ids, by when they beat. ARGV: an id, then seconds: after how many a
# process is silent; dead; forgotten; Redis was away; of grace after that; then what the
# last answer was `about`, or "-": tell nothing of the silent. Returns an `Answer`.
BEAT = Script(
    CLOCK
    + """\
local key, liveness, dead = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local keep, away, grace = now - ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local before = call('ZSCORE', key, ARGV[1])
local newest = tonumber(call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2]) or now
call('ZADD', key, now, ARGV[1])
if newest > now + 1 then -- by another server, whose clock was ahead
    for _, id in ipairs(call('ZRANGE', key, -call('ZCOUNT', key, now, '+inf'), -1)) do
        call('ZADD', key, now, id)
    end
end
if now - newest > away then
    local outage = tonumber(call('ZSCORE', key, '!outage'))
    if not outage or newest - outage > grace then
        call('ZADD', key, newest, '!before')
    end
    call('ZADD', key, now, '!outage')
end
"""
    + _JUDGED
    + """\
local dropped, old = {}, call('ZCOUNT', key, '-inf', keep)
if old > 0 then
    dropped = call('ZRANGE', key, 0, old - 1)
    call('ZREMRANGEBYSCORE', key, '-inf', keep)
end
call('EXPIRE', key, math.ceil(tonumber(ARGV[4])))
local pruned = before and tonumber(before) <= judged - dead
local info = redis.pcall('INFO', 'stats')
local evicted = type(info) == 'string' and info:match('evicted_keys:(%d+)') or '0'
local silent, about = false, ARGV[7]
if about ~= '-' then
    local count = call('ZCOUNT', key, '-inf', judged - liveness)
    about = ''
    if count > 0 then
        local last = call('ZRANGE', key, count - 1, count - 1, 'WITHSCORES')[2]
        about = count .. ':' .. last
    end
    if about ~= ARGV[7] then
        silent = count > 0 and call('ZRANGE', key, 0, count - 1, 'WITHSCORES') or {}
    end
end
local living = call('ZCARD', key) - call('ZCOUNT', key, '-inf', judged - liveness)
for _, mark in ipairs({'!outage', '!before'}) do
    local at = call('ZSCORE', key, mark)
    if at and tonumber(at) > judged - liveness then living = living - 1 end
end
judged = string.format('%.6f', judged)
return {before, pruned and 1 or 0, judged, evicted, about, silent, dropped, living}
"""
)

# KEYS: what processes are, by their ids. ARGV: an id, what it is, and after how many
# seconds all of it is forgotten if nobody tells any more.
_TELL = Script(
    """\
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[3])))
return 1
""",
    repeatable=True,
)

# KEYS: as of BEAT. ARGV: seconds, as of BEAT the first and the last. Returns the ids of
# those who are not silent, and when they beat last.
_LIVING = Script(
    CLOCK
    + "local grace = tonumber(ARGV[2])\n"
    + _JUDGED
    + """\
local count = call('ZCOUNT', KEYS[1], judged - ARGV[1], '+inf')
if count == 0 then return {} end
return call('ZRANGE', KEYS[1], -count, -1, 'WITHSCORES')
""",
    repeatable=True,
)

# KEYS: a group key. ARGV: seconds, then channel names. Takes out those that joined
# longer ago: who came back to life meanwhile has joined anew.
_PRUNE = Script(
    CLOCK
    + """\
for i = 2, #ARGV do
    local joined = call('ZSCORE', KEYS[1], ARGV[i])
    if joined and tonumber(joined) < now - ARGV[1] then
        call('ZREM', KEYS[1], ARGV[i])
    end
end
return #ARGV - 1
"""
)

# KEYS: a group key. ARGV: group_expiry (seconds). How many members are not too old.
_COUNT = Script(
    CLOCK + "return call('ZCOUNT', KEYS[1], '(' .. (now - ARGV[1]), '+inf')\n",
    repeatable=True,
)


class LivenessWords:
    """The commands of a layer's heartbeats; `shard_of` maps a name to a shard's index.

    `period`: seconds between two beats. `home`: the shard where all beats are.
    """

    def __init__(self, settings: Settings, shard_of: Callable[[str], int]) -> None:
        liveness = settings.liveness
        self.period = liveness * _PERIOD
        self.home = shard_of(_TAG)
        dead_after = max(liveness * _DEAD, settings.expiry)
        self.census = Census(dead_after, valid=liveness * _KNOWN)
        self._prefix = settings.prefix
        self._infos = f"{settings.prefix}:stats:{{{_TAG}}}".encode()
        self._liveness, self._grace = number(liveness), number(liveness * _GRACE)
        # Younger members than this joined after their process came back to life.
        self._settled = number(dead_after / 2)
        self._group_expiry = number(settings.group_expiry)
        self._keep = number(max(settings.group_expiry, 2 * dead_after))
        self._times = (
            self._liveness,
            number(dead_after),
            self._keep,
            number(liveness * _OUTAGE),
            self._grace,
        )

    def key(self, number: int = 0) -> bytes:
        """The key of all beats; those with a number are at other nodes of a Cluster."""
        return f"{self._prefix}:alive:{{{_TAG}{number or ''}}}".encode()

    # To beat

    def beat(self, key: bytes, name: bytes, *, is_home: bool) -> Command:
        """Notes a beat; what is said of others is only at home of use."""
        about = self.census.about if is_home else b"-"
        return BEAT.on(key, name, *self._times, about)

    def tell(self, name: bytes, info: dict[str, Any]) -> Command:
        """Says what a process is."""
        packed = msgpack.packb(info, default=str)
        return _TELL.on(self._infos, _id_of(name), packed, self._keep)

    def leave(self, key: bytes, name: bytes) -> Command:
        """Takes an entry away, after which nothing is known of its process."""
        return (b"ZREM", key, name)

    def forget(self, names: list[bytes]) -> Command:
        """Takes away what these processes are."""
        return (b"HDEL", self._infos, *map(_id_of, names))

    def prune(self, key: bytes | str, members: list[bytes]) -> Iterator[Command]:
        """Takes members of dead processes out of a group, a portion at a time."""
        for start in range(0, len(members), _PORTION):
            part = members[start : start + _PORTION]
            yield _PRUNE.on(key, self._settled, *part)

    # To ask

    def count(self, key: bytes) -> Command:
        """Asks how many members a group has, be their processes silent or not."""
        return _COUNT.on(key, self._group_expiry)

    def living(self) -> tuple[Command, Command]:
        """Asks who is not silent, and what all are: `last_beats`, `decode_info`."""
        key = self.key()
        return _LIVING.on(key, self._liveness, self._grace), (b"HGETALL", self._infos)


def name_of(client_prefix: str, *, is_regular: bool) -> bytes:
    """The name under which a process beats."""
    return (b"" if is_regular else _IRREGULAR) + client_prefix.encode()


def is_heartbeat(key: bytes) -> bool:
    """Whether a key has heartbeats: a flush leaves those.

    So who finds its entry gone knows that data was lost.
    """
    return _KEY.search(key) is not None


def decode_answer(reply: list[Any]) -> Answer:
    """The reply to a beat."""
    before, pruned, judged, evicted, about, silent, dropped, living = reply
    return Answer(
        was_there=before is not None,
        was_pruned=pruned == 1,
        judged=float(judged),
        evicted=int(evicted),
        about=about,
        silent=None if silent is None else dict(_pairs(silent)),
        dropped=dropped,
        living=living,
    )


def last_beats(reply: list[bytes]) -> dict[bytes, float]:
    """The ids in a reply to the first command of `living`, and their last beats."""
    found = ((_id_of(name), at) for name, at in _pairs(reply))
    return {one: at for one, at in found if not one.startswith(b"!")}


def decode_info(packed: bytes | None) -> dict[str, Any] | None:
    """What a process said of itself; None: no process of ours said that."""
    try:
        found = msgpack.unpackb(packed or b"")
    except ValueError:
        return None
    is_ours = isinstance(found, dict) and isinstance(found.get("pid"), int)
    return found if is_ours else None


def _id_of(name: bytes) -> bytes:
    return name.removeprefix(_IRREGULAR)


def _pairs(reply: list[bytes]) -> Iterator[tuple[bytes, float]]:
    return zip(reply[::2], map(float, reply[1::2]), strict=True)
