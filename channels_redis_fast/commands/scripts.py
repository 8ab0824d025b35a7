"""The Lua scripts: each declares its keys, of one slot, so all topologies run it."""

from __future__ import annotations

import functools
import hashlib

from .command import Command

# Redis's clock in seconds. Numbers go to commands as numbers, which keeps their
# microseconds (Lua's own conversion to a string keeps 100 us). Scripts replicate their
# effects, so a script that writes after TIME is safe: the default since Redis 5, where
# it must be asked for only by older servers.
CLOCK = """\
local call = redis.call
local time = call('TIME')
local now = time[1] + time[2] / 1000000
"""


EVALSHA = b"EVALSHA"


class Script:
    """A Lua text and its digest, by which servers know it once it ran there.

    `keys`: how many it touches. `repeatable`: to run it twice does what running it
    once does.
    """

    def __init__(self, text: str, *, keys: int = 1, repeatable: bool = False) -> None:
        self.text = text.encode()
        self._keys = b"%d" % keys
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()
        _TEXTS[self.sha] = self.text
        if repeatable:
            _REPEATABLE.update((self.sha, self.text))

    def on(self, key: bytes | str, *args: bytes | str) -> Command:
        """The command that runs it on `key`; others come first in `args`."""
        return (EVALSHA, self.sha, self._keys, key, *args)


@functools.lru_cache(maxsize=1024, typed=True)
def number(value: float) -> bytes:
    """A number as an argument of a command, which must not be one."""
    return repr(value).encode()


_TEXTS: dict[bytes, bytes] = {}
_REPEATABLE: set[bytes] = set()  # digests and texts


def with_text(command: Command) -> Command:
    """The same script call for a server that doesn't know the script: EVAL."""
    return (b"EVAL", _TEXTS[command[1]], *command[2:])


def as_known(command: Command, scripts: set[bytes]) -> Command:
    """A command for a server that was sent the texts of these `scripts` already.

    With the text, if it is another one's, which counts as sent then: a script that is
    found missing by its error would let commands that follow overtake the first one.
    """
    if command[0] is not EVALSHA or command[1] in scripts:
        return command
    scripts.add(command[1])
    return with_text(command)


def is_repeatable(command: Command) -> bool:
    """Whether running a command twice does what running it once does."""
    return command[0] in (b"ZRANGE", b"ZREM", b"UNLINK") or command[1] in _REPEATABLE


def key_of(command: Command) -> bytes | str:
    """The one key that a command touches."""
    key: bytes | str = command[3 if command[0] in (b"EVALSHA", b"EVAL") else 1]
    return key


def arguments_of(command: Command) -> Command:
    """The key that a script call touches, and its arguments."""
    return command[3:]


# KEYS: a channel key. ARGV: member, capacity (messages), expiry (seconds).
# How many messages the channel has with this one; 0 when it is at capacity. The score
# is Redis's time, and later than that of every message before it, so a sender's
# messages keep their order in a burst and across a failover to a slower clock; but
# never more than `expiry` ahead, so that a wrong clock can't keep messages for ever. It
# is added before anything is removed: after another write Redis would no longer
# refuse it for want of memory. The last message, which may be long, is read for its
# score only where that is not over.
SEND = Script(
    CLOCK
    + """\
local key, capacity, expiry = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local held = call('ZCARD', key)
local is_new, living, score = held == 0, held, now
if held >= capacity and not is_new then
    living = call('ZCOUNT', key, now - expiry, '+inf')
end
if living >= capacity then return 0 end
if not is_new and call('ZCOUNT', key, now, '+inf') > 0 then
    local last = call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2]
    score = math.min(last + 0.000001, now + expiry)
end
call('ZADD', key, score, ARGV[1])
call('EXPIRE', key, math.max(1, math.ceil(expiry)))
if is_new then return 1 end
return held + 1 - call('ZREMRANGEBYSCORE', key, '-inf', now - expiry)
"""
)

# As SEND, for several messages. ARGV: expiry (seconds), then pairs of capacity and
# member. For each, the same number.
SEND_MANY = Script(
    CLOCK
    + """\
local key, expiry = KEYS[1], tonumber(ARGV[1])
local oldest = now - expiry
local count = call('ZCOUNT', key, oldest, '+inf')
local score, added, any = now, {}, false
if call('ZCOUNT', key, now, '+inf') > 0 then
    local last = call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2]
    score = math.min(last + 0.000001, now + expiry)
end
for i = 2, #ARGV, 2 do
    local fits = count < tonumber(ARGV[i])
    added[#added + 1] = fits and count + 1 or 0
    if fits then
        call('ZADD', key, score, ARGV[i + 1])
        count, any = count + 1, true
        score = math.min(score + 0.000001, now + expiry)
    end
end
if any then
    call('ZREMRANGEBYSCORE', key, '-inf', oldest)
    call('EXPIRE', key, math.max(1, math.ceil(expiry)))
end
return added
"""
)

# KEYS: a channel key. ARGV: expiry (seconds), then pairs of score and member.
# Puts messages back at their old place: they were accepted, so capacity is not asked.
# It makes them no younger.
PUT_BACK = Script(
    CLOCK
    + """\
local key, expiry = KEYS[1], tonumber(ARGV[1])
for i = 2, #ARGV, 2 do
    if tonumber(ARGV[i]) > now - expiry then
        redis.call('ZADD', key, ARGV[i], ARGV[i + 1])
    end
end
local last = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2]
if last then
    redis.call('EXPIRE', key, math.max(1, math.ceil(last + expiry - now)))
end
return #ARGV
"""
)

# KEYS: a group key. ARGV: group_expiry (seconds), then channel names.
JOIN = Script(
    CLOCK
    + """\
for i = 2, #ARGV do call('ZADD', KEYS[1], now, ARGV[i]) end
call('EXPIRE', KEYS[1], math.max(1, math.ceil(tonumber(ARGV[1]))))
return #ARGV - 1
""",
    repeatable=True,
)

# As JOIN, for members that are still there: what others discarded stays gone.
REFRESH = Script(
    CLOCK
    + """\
local there = 0
for i = 2, #ARGV do
    call('ZADD', KEYS[1], 'XX', now, ARGV[i])
    if call('ZSCORE', KEYS[1], ARGV[i]) then there = there + 1 end
end
if there > 0 then
    call('EXPIRE', KEYS[1], math.max(1, math.ceil(tonumber(ARGV[1]))))
end
return there
""",
    repeatable=True,
)

# KEYS: a group key. ARGV: group_expiry (seconds). Removes members that are too old, and
# returns the others: all through Lua, which takes Redis four times as long as ZRANGE.
MEMBERS = Script(
    CLOCK
    + """\
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[1]))
return call('ZRANGE', KEYS[1], 0, -1)
""",
    repeatable=True,
)

# KEYS: a group key. Takes out all members, and returns them. It does without UNLINK,
# for which not all users have the right.
CLEAR_GROUP = Script(
    """\
local members = redis.call('ZRANGE', KEYS[1], 0, -1)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '+inf')
return members
""",
    repeatable=True,
)
