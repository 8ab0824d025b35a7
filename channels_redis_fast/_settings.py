"""What CONFIG says, checked once; each error names the option and the value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._masking import Masked
from .exceptions import InvalidPrefix, InvalidSetting
from .types import History
from .wire._capacity import CapacityTable
from .wire.formats import ENCRYPTIONS

# Redis counts milliseconds since 1970 in 63 bits; those until now are few of them.
_LONGEST_EXPIRY = (2**63 - 1) // 1000 - 10**10
# Sockets count milliseconds in 31 bits; this leaves room for a blocking wait.
_LONGEST_TIMEOUT = 10**6

# A Redis Cluster hashes what stands in the first braces of a key: they must be the
# same for all keys of a group.
_TAGGED = re.compile(r"[^{}]*\{[^{}]+\}[^{}]*\Z")

_NORMAL_CHANNELS = ("single", "broadcast")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of a layer; raises `InvalidSetting` for a wrong value.

    docs/options.md says what they mean. What `hosts` and the keys hold, which may be
    secret, is checked by those who open them. Both layers have all: one has the
    defaults of what only the other one's users can set.
    """

    hosts: Masked[Any]
    prefix: str
    expiry: float
    group_expiry: float
    capacity: int
    channel_capacity: Any
    symmetric_encryption_keys: Masked[Any]
    encryption: str
    serializer_format: str
    refresh_groups: bool
    command_timeout: float
    max_message_size: int
    confirm_sends: bool
    random_prefix_length: int = 12
    prefetch: int = 1
    liveness: float = 15.0
    on_disconnect: str | None = None
    on_reconnect: str | None = None
    normal_channels: str = "single"
    sharded_pubsub: bool = True
    history: Any = None

    def __post_init__(self) -> None:
        _check_prefix(self.prefix)
        _check_seconds("expiry", self.expiry)
        _check_seconds("group_expiry", self.group_expiry)
        _check_seconds("liveness", self.liveness, _LONGEST_TIMEOUT)
        _check_seconds("command_timeout", self.command_timeout, _LONGEST_TIMEOUT)
        _check_count("max_message_size", self.max_message_size, 1)
        _check_count("random_prefix_length", self.random_prefix_length, None)
        _check_count("prefetch", self.prefetch, 1)
        _check_switch("confirm_sends", self.confirm_sends)
        _check_keys(self.symmetric_encryption_keys.value)
        _check_choice("encryption", self.encryption, ENCRYPTIONS)
        _check_choice("normal_channels", self.normal_channels, _NORMAL_CHANNELS)
        if self.prefetch > 1 and self.normal_channels == "broadcast":
            text = "prefetch is of no use with normal_channels='broadcast': {!r}"
            raise InvalidSetting(text.format(self.prefetch))
        _check_message_type("on_disconnect", self.on_disconnect)
        _check_message_type("on_reconnect", self.on_reconnect)

    def capacities(self) -> CapacityTable:
        """The table of both options; raises `InvalidSetting`."""
        _check_count("capacity", self.capacity, 0)
        rules = self.channel_capacity if self.channel_capacity is not None else {}
        if not isinstance(rules, Mapping):
            text = f"channel_capacity must be a dict of pattern to capacity: {rules!r}"
            raise InvalidSetting(text)
        return CapacityTable(self.capacity, rules.items())

    def histories(self) -> HistoryTable | None:
        """The table of `history`, None without one; raises `InvalidSetting`."""
        if self.history is None or self.history == {}:
            return None
        if not isinstance(self.history, Mapping):
            text = "history must be a dict of pattern to (messages, seconds): {!r}"
            raise InvalidSetting(text.format(self.history))
        if {"{", "}"} & {*self.prefix} and not _TAGGED.match(self.prefix):
            text = "with a history, prefix can't have braces, but for a whole tag: {!r}"
            raise InvalidPrefix(text.format(self.prefix))
        return HistoryTable(self.history)


class HistoryTable:
    """What is kept of each group's messages, by ordered patterns; first match wins.

    Patterns are those of `channel_capacity`. Raises `InvalidSetting`.
    """

    def __init__(self, rules: Mapping[Any, Any]) -> None:
        self._rules = [None, *map(_checked_history, rules.values())]
        numbers = {pattern: at for at, pattern in enumerate(rules, 1)}
        try:
            self._table = CapacityTable(0, numbers.items())
        except InvalidSetting as error:
            text = str(error).replace("channel_capacity", "history")
            raise InvalidSetting(text) from None

    def lookup(self, group: str) -> History | None:
        """The rule of a group; None: nothing is kept."""
        return self._rules[self._table.lookup(group)]


def _checked_history(value: Any) -> History:
    if not isinstance(value, tuple | list) or len(value) not in (2, 3):
        text = f"history wants (messages, seconds) or a History, not {value!r}"
        raise InvalidSetting(text)
    rule = History(*value)
    for name, number in rule._asdict().items():
        _check_count(f"history: {name} of {value!r}", number, 1)
        _check_seconds(f"history: {name} of {value!r}", number)
    if rule.position_ttl < rule.ttl:
        text = f"history: position_ttl can't be less than ttl: {value!r}"
        raise InvalidSetting(text)
    return rule


def _check_prefix(prefix: Any) -> None:
    if not isinstance(prefix, str):
        raise InvalidPrefix(f"prefix must be a str, not {prefix!r}")


def _check_seconds(name: str, value: Any, most: int = _LONGEST_EXPIRY) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < float("inf"):
        raise InvalidSetting(f"{name} must be a positive number of seconds: {value!r}")
    if value > most:
        raise InvalidSetting(f"{name} can't be over {most:.1e}: {value!r}")


def _check_count(name: str, value: Any, least: int | None) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or (least is not None and value < least):
        limit = "" if least is None else f", {least} or more"
        raise InvalidSetting(f"{name} must be a whole number{limit}: {value!r}")


def _check_switch(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidSetting(f"{name} must be True or False, not {value!r}")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidSetting(f"{name} must be one of {choices}, not {value!r}")


def _check_message_type(name: str, value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise InvalidSetting(f"{name} must be a message type or None, not {value!r}")


def _check_keys(keys: Any) -> None:
    if keys is not None and not keys:  # it would not encrypt
        text = f"symmetric_encryption_keys must be None or hold a key: {keys!r}"
        raise InvalidSetting(text)
