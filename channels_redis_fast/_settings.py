"""Checks of the values in CONFIG; each error names the option and the value."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from redis.asyncio.connection import (
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)

from .exceptions import InvalidPrefix, InvalidSetting
from .wire._capacity import CapacityTable


def check_prefix(prefix: Any) -> str:
    """The layer's prefix; raises `InvalidPrefix` when it isn't a str."""
    if not isinstance(prefix, str):
        raise InvalidPrefix(f"prefix must be a str, not {prefix!r}")
    return prefix


# Redis counts milliseconds since 1970 in 63 bits; those until now are few of them.
LONGEST_EXPIRY = (2**63 - 1) // 1000 - 10**10
# Sockets count milliseconds in 31 bits; this leaves room for a blocking wait.
LONGEST_TIMEOUT = 10**6


def check_seconds(name: str, value: Any, most: int = LONGEST_EXPIRY) -> float:
    """A positive number of seconds, at most `most`; raises `InvalidSetting`."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < float("inf"):
        raise InvalidSetting(f"{name} must be a positive number of seconds: {value!r}")
    if value > most:
        raise InvalidSetting(f"{name} can't be over {most:.1e} seconds: {value!r}")
    return float(value)


def check_count(name: str, value: Any, least: int | None = 0) -> int:
    """A whole number of at least `least` (None: any); raises `InvalidSetting`."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or (least is not None and value < least):
        limit = "" if least is None else f", {least} or more"
        raise InvalidSetting(f"{name} must be a whole number{limit}: {value!r}")
    return int(value)


def check_switch(name: str, value: Any) -> bool:
    """True or False; raises `InvalidSetting`."""
    if not isinstance(value, bool):
        raise InvalidSetting(f"{name} must be True or False, not {value!r}")
    return value


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of some words; raises `InvalidSetting`."""
    if value not in choices:
        raise InvalidSetting(f"{name} must be one of {choices}, not {value!r}")
    return str(value)


def check_message_type(name: str, value: Any) -> str | None:
    """A message's type, or None for no message; raises `InvalidSetting`."""
    if value is not None and (not isinstance(value, str) or not value):
        raise InvalidSetting(f"{name} must be a message type or None, not {value!r}")
    return value


def check_keys(keys: Any) -> None:
    """Raises `InvalidSetting` for an empty list of keys: it would not encrypt."""
    if keys is not None and not keys:
        text = f"symmetric_encryption_keys must be None or hold a key: {keys!r}"
        raise InvalidSetting(text)


def capacity_table(capacity: Any, channel_capacity: Any) -> CapacityTable:
    """The table of both options; raises `InvalidSetting`."""
    check_count("capacity", capacity)
    rules = channel_capacity if channel_capacity is not None else {}
    if not isinstance(rules, Mapping):
        text = f"channel_capacity must be a dict of pattern to capacity: {rules!r}"
        raise InvalidSetting(text)
    return CapacityTable(capacity, rules.items())


def options_of(layer: type) -> list[str]:
    """The names of the options that a layer's class takes."""
    _, *parameters = inspect.signature(vars(layer)["__init__"]).parameters.values()
    return [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]


def refuse_unknown(unknown: dict[str, Any], known: Collection[str]) -> None:
    """Raises `TypeError` for an option that there isn't, saying what may be meant.

    Empties `unknown`, whose values error reporters would show: one may be a password.
    """
    names = list(unknown)
    unknown.clear()
    if names:
        raise TypeError(f"unknown option {names[0]!r}{_hint(names[0], known)}")


def _hint(name: str, known: Collection[str]) -> str:
    if name in _connection_arguments():
        return f": it belongs into an entry of 'hosts', as in hosts=[{{{name!r}: ...}}]"
    if close := difflib.get_close_matches(name, known, n=1):
        return f"; the closest known is {close[0]!r}"
    return f"; there are {', '.join(known)}. Connection arguments belong into `hosts`"


def _connection_arguments() -> set[str]:
    """What redis-py takes, and what says which kind of host it is."""
    kinds = (Connection, SSLConnection, UnixDomainSocketConnection, ConnectionPool)
    names = {"address", "cluster", "master_name", "sentinel_kwargs", "sentinels", "ssl"}
    for kind in {base for each in kinds for base in each.__mro__[:-1]}:
        if "__init__" not in vars(kind):
            continue
        parameters = inspect.signature(vars(kind)["__init__"]).parameters.values()
        names |= {one.name for one in parameters if one.kind is not one.VAR_KEYWORD}
    return names - {"self"}
