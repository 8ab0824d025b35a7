"""The Lua scripts of groups that have a history."""

from __future__ import annotations

from .scripts import Script

# KEYS: position, history (a list of messages, the last of which has that position, and
# each before it the one before). The position's value: 8 digits of the server process's
# id, the position, seconds and microseconds of the last message.
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

# An epoch is later than all that were here: that of the last message stands in front of
# it or at its end.
_BEGIN = """\
        local last = call('LINDEX', KEYS[2], -1)
        local former = tonumber(epoch or 0)
        if last then
            local id = '(' .. string.rep('%d', 13) .. ')%-' .. string.rep('%d', 12)
            local kept = string.match(last, '^\\193' .. id)
                or string.match(string.sub(last, -28), id .. '"?}?$')
            former = math.max(former, tonumber(kept or 0))
        end
        local now = math.floor(time[1] * 1000 + time[2] / 1000)
        epoch = string.format('%013.0f', math.max(now, former + 1))
        process, offset = here or process or '00000000', 0
"""

# Messages of another epoch. What reads and what forgets begins with this: after it
# Redis refuses nothing for want of memory.
_DROP = """\
        call('UNLINK', KEYS[2])
"""

_NOTE = """\
local id = epoch .. string.format('-%012.0f', offset)
local value = process .. id .. ' ' .. time[1] .. ' ' .. time[2]
"""

# ARGV: size (messages), ttl and position_ttl (seconds), the command and the name to
# publish with, or '', then of each message what stands before its position, and what
# behind. For each the position, and how many got it.
#
# Offsets are contiguous in an epoch. A new one begins where it can't be known that they
# are: the position is gone, or a server process that began later (after a restart or a
# failover) may lack messages which others have seen. It is asked who it is unless the
# last message is so new that no failover fits in between; and as little as possible is
# done for each message: what Lua does costs more than the commands. SET comes before
# all other writes, so that Redis can refuse it for want of memory.
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
local before = offset
offset = offset + (#ARGV - 5) / 2
"""
    + _NOTE
    + """\
call('SET', KEYS[1], value, 'EX', ARGV[3])
if before == 0 then call('UNLINK', KEYS[2]) end
local messages, found = {}, {}
for i = 6, #ARGV, 2 do
    before = before + 1
    id = epoch .. string.format('-%012.0f', before)
    messages[#messages + 1] = ARGV[i] .. id .. ARGV[i + 1]
    found[#found + 1], found[#found + 2] = id, 0
end
call('RPUSH', KEYS[2], unpack(messages))
call('LTRIM', KEYS[2], -ARGV[1], -1)
call('EXPIRE', KEYS[2], ARGV[2])
if ARGV[4] == '' then return found end
for number, message in ipairs(messages) do
    found[2 * number] = call(ARGV[4], ARGV[5], message)
end
return found
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
    + _DROP
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
for _, message in ipairs(call('LRANGE', KEYS[2], first - offset - 1, -1)) do
    found[#found + 1] = message
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
    + _DROP
    + _NOTE
    + """\
call('SET', KEYS[1], value, 'EX', ARGV[1])
return {id}
""",
    keys=2,
)
