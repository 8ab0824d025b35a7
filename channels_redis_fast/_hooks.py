"""What subclasses of a layer may override: names, shards, capacities, bytes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from channels import exceptions
from channels.layers import BaseChannelLayer

from ._counting import Messages
from ._settings import Settings
from .commands.operations import Operations
from .exceptions import InvalidMessage, InvalidName
from .wire import _names
from .wire._hashing import shard_of
from .wire.codec import Codec, SerializerCodec, SizeLimit, codec_of
from .wire.formats import serializer_of

_STANDARD = ("channel_name_regex", "group_name_regex", "MAX_NAME_LENGTH")

# Methods of channels_redis's layers that these call, and ours don't.
_NEVER_CALLED = ("create_pool", "connection", "_get_layer", "_get_shard")


class MessageTooLarge(InvalidMessage, exceptions.MessageTooLarge):  # type: ignore[misc]
    """A message that is longer than `max_message_size`."""


def key_after(begin: str, name: str) -> bytes:
    """The key of a name: what all keys of its kind begin with, and the name."""
    return f"{begin}{name}".encode()


def serializer_for(settings: Settings, **options: Any) -> Any:
    """What makes bytes of messages, in the format and with the keys of a layer."""
    if settings.encryption != "fernet":  # whole classes of others don't know this one
        options["encryption"] = settings.encryption
    keys = settings.symmetric_encryption_keys
    return serializer_of(settings.serializer_format, keys, **options)


def refuse_overrides(layer: type) -> None:
    """Raises `TypeError` for a class with methods that would never be called."""
    for name in _NEVER_CALLED:
        owner = next((c for c in layer.__mro__ if name in vars(c)), None)
        if owner and not owner.__module__.startswith("channels_redis_fast."):
            raise TypeError(
                f"{owner.__qualname__}.{name} would never be called: say how to "
                "connect by an entry of `hosts` and a `credential_provider` in it"
            )


class LayerHooks(BaseChannelLayer):  # type: ignore[misc]
    """The hooks, and how they are called: not at all where nobody overrides them."""

    # A name is shorter: those of 100 bytes must do, the specification demands.
    MAX_NAME_LENGTH = 101
    invalid_name_error = (
        "{} name must be a valid unicode string with length < 101 containing only "
        "ASCII alphanumerics, hyphens, underscores, or periods."
    )
    ChannelFull = exceptions.ChannelFull
    MessageTooLarge = MessageTooLarge

    ring_size: int  # of hosts
    _messages: Messages
    _normal_serializer: Any = None  # of normal channels, if they have their own

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._capacities = settings.capacities()
        self.capacity = settings.capacity
        rules = self.compile_capacities(settings.channel_capacity or {})
        self.channel_capacity = tuple(rules)  # which can't be changed
        self._size_limit = SizeLimit(settings.max_message_size, MessageTooLarge)
        self._serializer = self._make_serializer(settings)
        self._codec = self._make_codec()
        self._names_are_standard = not self._is_overridden(*_STANDARD)
        self._names_are_fast = self._names_are_standard and not self._is_overridden(
            "require_valid_channel_name"
        )

    def serialize(self, message: dict[str, Any]) -> bytes:
        """The message as bytes; may be overridden together with `deserialize`."""
        serialized: bytes = self._serializer.serialize(message)
        return serialized

    def deserialize(self, message: bytes) -> dict[str, Any]:
        """The message that `serialize` made bytes of."""
        found: dict[str, Any] = self._serializer.deserialize(message)
        return found

    def consistent_hash(self, value: str | bytes) -> int:
        """The index of the shard for a name."""
        return shard_of(value, self.ring_size)

    def get_capacity(self, channel: str) -> int:
        """A channel's capacity (messages): the first rule that matches."""
        return self._capacities.lookup(channel)

    def require_valid_channel_name(self, name: Any, receive: bool = False) -> bool:
        """True for a valid channel name; raises `TypeError` for others.

        With `receive`, a process-local name must end at its `!`.
        """
        if self._names_are_standard:
            _names.non_local_name(name)
        elif not self._matches(self.channel_name_regex, name):
            raise self._invalid("Channel", name)
        if receive and "!" in name and not name.endswith("!"):
            raise InvalidName(
                f"Specific channel names in receive() must end at the !, not {name!r}"
            )
        return True

    def require_valid_group_name(self, name: Any) -> bool:
        """True for a valid group name; raises `TypeError` for others."""
        if self._names_are_standard:
            _names.check_group(name)
        elif not self._matches(self.group_name_regex, name):
            raise self._invalid("Group", name)
        return True

    # What a layer calls in their place

    def _non_local(self, channel: Any) -> str:
        """Checks a channel name; its non-local part (itself for a normal channel)."""
        if self._names_are_fast:
            return _names.non_local_name(channel)
        self.require_valid_channel_name(channel)
        return _names.split_local(channel)

    def _shard_of(self) -> Callable[[str], int]:
        if self._is_overridden("consistent_hash"):
            return self.consistent_hash
        return functools.partial(shard_of, ring_size=self.ring_size)

    def _capacity_of(self) -> Callable[[str], int]:
        overridden = self._is_overridden("get_capacity")
        return self.get_capacity if overridden else self._capacities.lookup

    def _make_operations(
        self, codec: Codec, group_key: Callable[[str], bytes]
    ) -> Operations:
        return Operations(
            self._settings,
            codec=codec,
            shards=self.ring_size,
            shard_of=self._shard_of(),
            capacity_of=self._capacity_of(),
            group_key=group_key,
            messages=self._messages,
        )

    def _make_serializer(self, settings: Settings) -> Any:
        # Below 0 means none, as it does to channels_redis.
        length = max(0, settings.random_prefix_length)
        return serializer_for(
            settings, random_prefix_length=length, expiry=settings.expiry
        )

    def _make_codec(self) -> Codec:
        serializer, limit = self._serializer, self._size_limit
        if not self._is_overridden("serialize", "deserialize"):
            return codec_of(serializer, limit)
        return SerializerCodec(
            lambda message, key: self.serialize(message),
            lambda member, key: self.deserialize(member),
            limit,
        )

    # Steps

    def _is_overridden(self, *names: str) -> bool:
        cls = type(self)
        return any(getattr(cls, one) is not getattr(LayerHooks, one) for one in names)

    def _matches(self, regex: re.Pattern[str], name: Any) -> bool:
        # fullmatch: a pattern that ends in `$` lets a trailing newline through.
        return (
            isinstance(name, str)
            and len(name) < self.MAX_NAME_LENGTH
            and regex.fullmatch(name) is not None
        )

    def _invalid(self, kind: str, name: Any) -> InvalidName:
        text = self.invalid_name_error.format(kind)
        return InvalidName(f"{text}, not {name!r:.200}")
