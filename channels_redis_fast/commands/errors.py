"""What each error means: whether its command ran, and whether waiting helps."""

from __future__ import annotations

import enum
import re
from typing import Any, NamedTuple, TypeGuard

from redis import exceptions as errors


@enum.unique
class Kind(enum.Enum):
    """What becomes of a command that got an error. But for LOST, it did not run."""

    FINAL = "raised at once"
    FULL = "raised at once; what was received already waits"
    PASSING = "tried again"
    DEMOTED = "tried again by the primary, which is looked up anew"
    MOVED = "tried again at once, by the node that the error names"
    UNKNOWN = "tried again at once, with the script's text"
    LOST = "raised; what may run twice is tried again, once"


class Code(NamedTuple):
    """One row of the table, of an error reply's first word: what it means, and why."""

    kind: Kind
    raised: type[errors.RedisError]
    why: str


_OPERATOR = "somebody has to change something first"

# From the documentation and sources of Redis 5 to 8 and Valkey 9 (server.c:
# processCommand, script.c: scriptVerifyWriteCommandAllow, blocked.c, cluster.c). All
# are said before a command runs; a script gets them at its first write. What isn't here
# is FINAL.
CODES: dict[str, Code] = {
    "LOADING": Code(
        Kind.PASSING, errors.BusyLoadingError, "the server reads its data after a start"
    ),
    "BUSY": Code(
        Kind.PASSING,
        errors.ResponseError,
        "somebody's script runs for longer than `busy-reply-threshold`",
    ),
    "NOREPLICAS": Code(
        Kind.PASSING,
        errors.ResponseError,
        "fewer than `min-replicas-to-write` are there, as after a restart",
    ),
    "MISCONF": Code(
        Kind.PASSING,
        errors.ResponseError,
        "the last snapshot failed, as for want of space; the next one may not",
    ),
    "CLUSTERDOWN": Code(
        Kind.PASSING,
        errors.ClusterDownError,
        "no node serves the slot, until a replica takes over",
    ),
    "TRYAGAIN": Code(
        Kind.PASSING, errors.TryAgainError, "the slot is on its way to another node"
    ),
    "READONLY": Code(Kind.DEMOTED, errors.ReadOnlyError, "the server is a replica"),
    "MASTERDOWN": Code(
        Kind.DEMOTED,
        errors.MasterDownError,
        "the server is a replica, and has lost its primary",
    ),
    "UNBLOCKED": Code(
        Kind.DEMOTED,
        errors.ResponseError,
        "the server became a replica while somebody waited there",
    ),
    "MOVED": Code(Kind.MOVED, errors.MovedError, "the slot is at another node"),
    "ASK": Code(Kind.MOVED, errors.AskError, "the key is at another node already"),
    "NOSCRIPT": Code(
        Kind.UNKNOWN, errors.NoScriptError, "the server forgot its scripts"
    ),
    "OOM": Code(
        Kind.FULL,
        errors.OutOfMemoryError,
        "`maxmemory` is used up: as with `ChannelFull`, who sends should know",
    ),
    "NOPERM": Code(Kind.FINAL, errors.NoPermissionError, _OPERATOR),
    "NOAUTH": Code(Kind.FINAL, errors.AuthenticationError, _OPERATOR),
    "WRONGPASS": Code(Kind.FINAL, errors.AuthenticationError, _OPERATOR),
    "WRONGTYPE": Code(
        Kind.FINAL, errors.ResponseError, "the key is somebody else's, of another type"
    ),
    "ERR": Code(
        Kind.FINAL,
        errors.ResponseError,
        "all else: an unknown command, a script's own error",
    ),
}

# redis-py, which opens the connections, leaves the first word out of its errors.
_BY_CLASS: dict[type, Kind] = {
    **{
        code.raised: code.kind
        for code in CODES.values()
        if code.raised is not errors.ResponseError
    },
    errors.AuthorizationError: Kind.FINAL,
    errors.ConnectionError: Kind.LOST,
    errors.TimeoutError: Kind.LOST,
    OSError: Kind.LOST,
}

# How Redis before 7 wraps an error that a command of a script got.
_IN_SCRIPT = re.compile(r"ERR Error running script .*?: -(([A-Z]+) .*)", re.DOTALL)

# Their classes parse a destination out of the text, without its first word.
_REDIRECTIONS = (errors.MovedError, errors.AskError)


def reply_error(text: str) -> errors.RedisError:
    """The redis-py exception for an error reply, by the first word of its text."""
    in_script = _IN_SCRIPT.match(text)
    code, _, rest = (in_script[1] if in_script else text).partition(" ")
    row = CODES.get(code)
    raised = row.raised if row else errors.ResponseError
    if raised in _REDIRECTIONS:
        try:
            return raised(rest)
        except ValueError:  # it names no destination
            return errors.ResponseError(text)
    return raised(text)


def kind_of(error: object) -> Kind:
    """What becomes of the command that got an error."""
    for cls in type(error).__mro__:
        if cls in _BY_CLASS:
            return _BY_CLASS[cls]
    text = str(error)
    if in_script := _IN_SCRIPT.match(text):
        text = in_script[1]
    row = CODES.get(text.partition(" ")[0])
    # The others have classes of their own.
    is_known = row is not None and row.raised is errors.ResponseError
    return row.kind if row and is_known else Kind.FINAL


def unanswered(seconds: float) -> errors.ConnectionError:
    """What callers get who waited for so long: their command may have run."""
    return errors.ConnectionError(f"no answer within {seconds:g} s")


def copy_of(error: Exception) -> Exception:
    """A new instance for each caller: a raised exception collects a traceback."""
    return type(error)(*error.args)


def value_of(reply: Any) -> Any:
    """A reply; raises it if it is an error."""
    if isinstance(reply, Exception):
        raise reply
    return reply


def is_demotion(error: object) -> bool:
    """Whether the error says that the server is no primary (any more)."""
    return kind_of(error) is Kind.DEMOTED


def is_passing(error: object) -> bool:
    """Whether the error goes away by itself, at the same server."""
    return kind_of(error) is Kind.PASSING


def may_pass(error: object) -> bool:
    """Whether what was refused may be taken later, though nobody changes anything."""
    return kind_of(error) in (Kind.PASSING, Kind.DEMOTED, Kind.FULL)


def is_connection_loss(error: object) -> bool:
    """Whether the server was not reached or not heard: the command may have run."""
    return kind_of(error) is Kind.LOST


def is_ask(error: object) -> TypeGuard[errors.AskError]:
    """Whether the error sends one command elsewhere; a MOVED sends all of them."""
    # redis-py's MovedError is an AskError, too.
    is_moved = isinstance(error, errors.MovedError)
    return isinstance(error, errors.AskError) and not is_moved
