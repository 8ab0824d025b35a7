"""A message and its channels <-> a member of a channel key."""

from __future__ import annotations

import functools
import reprlib
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, Protocol

from ..exceptions import InvalidMessage, UnreadableMessage
from . import _envelope
from .formats import BaseMessageSerializer, MsgPackSerializer

CHANNEL = "__asgi_channel__"

Message = dict[str, Any]

# A process with more members of a group gets its message several times, for some of
# them each: else no bound could be set to what is read.
MOST_CHANNELS = 10_000
_PER_CHANNEL = 140  # bytes: a name, its punctuation, and a third more if encrypted
_PUNCTUATION = 4  # bytes

Opened = tuple[list[str] | None, Message, bool]


class Opener(Protocol):
    """How bytes become messages. `key` is the Redis key that they travel through."""

    def open(self, member: bytes, key: bytes) -> Opened:
        """Channels (None: not said), the message, and whether it holds no container.

        Raises `UnreadableMessage`.
        """


class Codec(Opener, Protocol):
    """How messages become bytes, and bytes messages."""

    def body(self, message: Message) -> Any:
        """The part that all recipients share; raises `InvalidMessage`."""

    def seal(self, body: Any, channel: str | None, key: bytes) -> bytes:
        """A member for one channel; None: a normal channel, which needs no name."""

    def seal_list(self, body: Any, channels: list[bytes], key: bytes) -> bytes:
        """A member for some channels (UTF-8) of one process."""

    def check(self, body: Any) -> None:
        """Raises at once what `seal_list` might raise for the message."""


class SizeLimit:
    """How long a message may be (bytes), and what is raised when one to send isn't.

    The names of its channels don't count. A member of more than `longest`
    bytes holds no such message.
    """

    __slots__ = ("_error", "longest", "size")

    def __init__(self, size: int, error: type[InvalidMessage]) -> None:
        self.size = size
        self.longest = (size + MOST_CHANNELS * _PER_CHANNEL) * 4 // 3 + 1024
        self._error = error

    def check(self, message: bytes, channels: Sequence[str] = ()) -> bytes:
        """The message itself, which names these channels."""
        if not self.allows(message, channels):
            raise self._error(
                f"message of {len(message)} bytes is over max_message_size "
                f"({self.size} bytes)"
            )
        return message

    def allows(self, message: bytes, channels: Sequence[str]) -> bool:
        """Whether a message that names these channels isn't too long."""
        if len(message) <= self.size:
            return True
        if not channels:
            return False
        names = len(CHANNEL) + sum(map(len, channels))
        names += _PUNCTUATION * (len(channels) + 1)
        return len(message) <= self.size + names * 4 // 3  # they may be encrypted


class MsgpackCodec:
    """The compiled way, for the msgpack serialiser as it is."""

    def __init__(self, serializer: MsgPackSerializer, limit: SizeLimit) -> None:
        self._next_unique = serializer.unique.next
        self._unique_length = serializer.random_prefix_length
        self._is_encrypted = serializer.crypter is not None
        self._encrypt = serializer.seal
        self._decrypt = serializer.open
        self._limit = min(limit.size, sys.maxsize)
        self._longest = limit.longest
        self._checked = limit.check

    def body(self, message: Message) -> bytes:
        """The message as msgpack."""
        return self._checked(_envelope.pack(message))

    def seal(self, body: bytes, channel: str | None, key: bytes) -> bytes:
        """Unique bytes, then the envelope or the token that holds it."""
        if self._is_encrypted:
            envelope = body
            if channel is not None:
                envelope = _envelope.splice(b"", body, channel)
            return self._encrypt(envelope, key)
        unique = self._next_unique()
        if channel is None:
            return unique + body
        return _envelope.splice(unique, body, channel)

    def seal_list(self, body: bytes, channels: list[bytes], key: bytes) -> bytes:
        """As `seal`, for some channels."""
        if self._is_encrypted:
            return self._encrypt(_envelope.splice_list(b"", body, channels), key)
        return _envelope.splice_list(self._next_unique(), body, channels)

    def check(self, body: bytes) -> None:
        """Nothing: what is a body can be sealed."""

    def open(self, member: bytes, key: bytes) -> Opened:
        """The reverse of both."""
        if len(member) > self._longest:
            raise UnreadableMessage(f"a message of {len(member)} bytes on {key!r}")
        if self._is_encrypted:
            return _envelope.unpack(self._decrypt(member, key), 0, self._limit)
        return _envelope.unpack(member, self._unique_length, self._limit)


class SerializerCodec:
    """The general way: other formats, registered and overridden serialisers.

    Both functions get the key, too, which AES-GCM binds a message to. `check_readable`
    raises for a message that was serialised and can't be read again.
    """

    def __init__(
        self,
        serialize: Callable[[Message, bytes], bytes],
        deserialize: Callable[[bytes, bytes], Message],
        limit: SizeLimit,
        check_readable: Callable[[Message], None] | None = None,
    ) -> None:
        self._serialize = serialize
        self._deserialize = deserialize
        self._limit = limit
        self._check_readable = check_readable

    def body(self, message: Message) -> Message:
        """The message itself, checked."""
        if not isinstance(message, dict):
            raise InvalidMessage(f"message is not a dict: {reprlib.repr(message)}")
        if CHANNEL in message:
            text = f"message has the reserved key {CHANNEL!r}: {reprlib.repr(message)}"
            raise InvalidMessage(text)
        return message

    def seal(self, body: Message, channel: str | None, key: bytes) -> bytes:
        """What the serialiser makes of the message with its channel."""
        if channel is None:
            return self._serialized(body, key, ())
        return self._serialized({**body, CHANNEL: channel}, key, (channel,))

    def seal_list(self, body: Message, channels: list[bytes], key: bytes) -> bytes:
        """As `seal`, for some channels."""
        names = [channel.decode() for channel in channels]
        return self._serialized({**body, CHANNEL: names}, key, names)

    def check(self, body: Message) -> None:
        """Serialises it for nobody."""
        self.seal_list(body, [], b"")

    def open(self, member: bytes, key: bytes) -> Opened:
        """The reverse of both."""
        if len(member) > self._limit.longest:
            raise UnreadableMessage(f"a message of {len(member)} bytes on {key!r}")
        try:
            message = self._deserialize(member, key)
        except UnreadableMessage:
            raise
        except Exception as error:  # whatever a serialiser raises for bad bytes
            raise UnreadableMessage(f"{type(error).__name__}: {error}") from error
        if not isinstance(message, dict):
            raise UnreadableMessage(f"not a message: {reprlib.repr(message)}")
        channels = _channels(message.pop(CHANNEL, None))
        if not self._limit.allows(member, channels or ()):
            raise UnreadableMessage(f"a message of {len(member)} bytes on {key!r}")
        return channels, message, False

    def _serialized(
        self, message: Message, key: bytes, channels: Sequence[str]
    ) -> bytes:
        try:
            member = self._serialize(message, key)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            text = f"message can't be serialised: {error}: {reprlib.repr(message)}"
            raise InvalidMessage(text) from error
        if self._check_readable is not None:
            self._check_readable(message)
        return self._limit.check(member, channels)


def codec_of(serializer: Any, limit: SizeLimit) -> Codec:
    """The fastest codec that does what a serialiser does."""
    if type(serializer) is MsgPackSerializer:
        return MsgpackCodec(serializer, limit)
    kind, ours = type(serializer), BaseMessageSerializer
    check = _envelope.check_keys if _is_strict_msgpack(kind) else None
    if (
        isinstance(serializer, ours)
        and kind.serialize is ours.serialize
        and kind.deserialize is ours.deserialize
    ):
        return SerializerCodec(
            serializer.serialize, serializer.deserialize, limit, check
        )
    return SerializerCodec(
        lambda message, key: serializer.serialize(message),
        lambda member, key: serializer.deserialize(member),
        limit,
    )


def _is_strict_msgpack(kind: type) -> bool:
    """Whether a serialiser packs any key, and unpacks only str and bytes."""
    names = ("as_bytes", "from_bytes", "serialize", "deserialize")
    return all(
        getattr(kind, name, None) is getattr(MsgPackSerializer, name) for name in names
    )


def copier(
    codec: Opener,
    member: bytes,
    key: bytes,
    message: Message,
    flat: bool,
    without: str | None = None,
) -> Callable[[], Message]:
    """Makes a message's copies: no receiver sees another's changes.

    `without`: an entry that the bytes have, and the message no more.
    """
    if flat:
        return message.copy

    def copy() -> Message:
        try:
            return codec.open(member, key)[1]
        except UnreadableMessage:  # it got too old between two copies
            return deepcopy(message)

    return copy if without is None else functools.partial(_copy_without, copy, without)


def _copy_without(copy: Callable[[], Message], without: str) -> Message:
    found = copy()
    found.pop(without, None)
    return found


def _channels(names: Any) -> list[str] | None:
    if isinstance(names, str):
        return [names]
    if names is None:
        return None
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names
    raise UnreadableMessage(f"no channel names: {reprlib.repr(names)}")
