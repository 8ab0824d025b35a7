"""Checks of the values in CONFIG; each error names the option and the value."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from ._capacity import CapacityTable
from .exceptions import InvalidPrefix, InvalidSetting


def check_prefix(prefix: Any) -> str:
    """The layer's prefix; raises `InvalidPrefix` when it isn't a str."""
    if not isinstance(prefix, str):
        raise InvalidPrefix(f"prefix must be a str, not {prefix!r}")
    return prefix


def check_seconds(name: str, value: Any) -> float:
    """A positive number of seconds; raises `InvalidSetting`."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < float("inf"):
        raise InvalidSetting(f"{name} must be a positive number of seconds: {value!r}")
    return float(value)


def check_count(name: str, value: Any, least: int = 0) -> int:
    """A whole number of at least `least`; raises `InvalidSetting`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        text = f"{name} must be a whole number, {least} or more: {value!r}"
        raise InvalidSetting(text)
    return value


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
    parameters = inspect.signature(layer).parameters.values()
    return [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]


def refuse_unknown(unknown: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raises `TypeError` for an option that there isn't, naming the closest."""
    for name in unknown:
        close = difflib.get_close_matches(name, list(known), n=1, cutoff=0)
        raise TypeError(f"unknown option {name!r}; the closest known is {close[0]!r}")
