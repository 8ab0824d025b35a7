"""Passwords: kept where nobody prints them, cut out of what is shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

_HIDDEN = "***"
# Packages in whose frames passwords may be variables.
_SECRETIVE = ("channels_redis_fast", "redis")
# What may be shown of an entry of `hosts`. All else may be secret, whatever its name.
_SHOWN = frozenset(
    ("address", "cluster", "db", "host", "master_name", "path", "port", "sentinels")
)
# What a place may look like: a host, a port, a path. A password may look otherwise.
_HOST = r"(\[[\w:.%]+\]|[\w.*-]+)"
_HOST_AND_MORE = re.compile(f"{_HOST}:(?!/)")
_PLACE = re.compile(
    rf"({_HOST}(:\d*)?)?(/.*)?|(rediss?|unix):({_HOST}:\d+(/.*)?|/.*)", re.IGNORECASE
)


class Masked(Generic[T]):
    """Holds what may hold secrets. Tools that show variables show no more than `***`.

    Neither a mapping nor a sequence, which such tools look into.
    """

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __repr__(self) -> str:
        return _HIDDEN


def without_frames(error: E) -> E:
    """The error alone: the frames that it passed, and causes, may hold secrets."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def with_frames_of_others(error: E) -> E:
    """An error of a signal handler, or of a credential provider: where it came from.

    The frames before, of redis-py and this package, may hold secrets.
    """
    found = traceback = error.__traceback__
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__"))
        if module.partition(".")[0] in _SECRETIVE:
            found = traceback.tb_next
        traceback = traceback.tb_next
    error.__context__ = None
    return error.with_traceback(found)


def mask(entry: Any) -> str:
    """An entry of `hosts`, or all of them, for an error message: no password."""
    return repr(_masked(entry))


def place_of(text: str) -> str:
    """What a URL, or what was meant to be one, names, without user, password, query."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    place = rest.partition("?")[0]
    if "@" in place:
        place = place.rpartition("@")[2]
    elif "@" in rest:  # a password with a question mark that should be encoded
        place = _HIDDEN
    if not _PLACE.fullmatch(place):
        host = _HOST_AND_MORE.match(place)
        place = f"{host[0]}{_HIDDEN}" if host else _HIDDEN
    return f"{scheme}{separator}{place}"


def _masked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _masked(v) if k in _SHOWN else _HIDDEN for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        # (host, port, password) is no entry, and may be taken for one.
        shown = 2 if len(value) > 2 and isinstance(value[1], int) else len(value)
        return (*map(_masked, value[:shown]), *(_HIDDEN for _ in value[shown:]))
    if isinstance(value, str):
        return _masked_text(value)
    return value if value is None or isinstance(value, (int, float)) else _HIDDEN


def _masked_text(text: str) -> str:
    scheme, separator, place = place_of(text).rpartition("://")
    login = f"{_HIDDEN}@" if "@" in text and place != _HIDDEN else ""
    query = f"?{_HIDDEN}" if "?" in text else ""
    return f"{scheme}{separator}{login}{place}{query}"
