"""Messages with a position: the bytes around it, which Redis chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..types import POSITION
from .codec import Codec, Message, MsgpackCodec, Opened, SizeLimit
from .formats import BaseMessageSerializer, JSONSerializer
from .positions import ID_SIZE, Position, id_of, read_id, read_wire

# The first byte of a message whose position stands in front; msgpack has no such byte.
_FRAME = b"\xc1"
_KEY = bytes((0xA0 | len(POSITION),)) + POSITION.encode()  # as msgpack packs it
_ID_HEADER = bytes((0xA0 | ID_SIZE,))
_ROOM = 200  # bytes, for a position and its group


class Parts(Protocol):
    """Makes of a codec's body and a key what stands before a position, and behind."""

    def __call__(self, codec: Codec, body: Any, key: bytes) -> tuple[bytes, bytes]: ...


class PlacedCodec:
    """A codec whose messages may have positions, which `open` leaves in them.

    What a sender found in a message that it received isn't sent on. `parts`: how the
    bytes are joined. `group_of` tells the group of a key, None: the position names it.
    """

    def __init__(
        self,
        codec: Codec,
        limit: SizeLimit,
        parts: Parts,
        group_of: Callable[[bytes], str | None] = lambda key: None,
    ) -> None:
        self.seal = codec.seal
        self.seal_list = codec.seal_list
        self.check = codec.check
        self._codec = codec
        self._limit = limit
        self._parts = parts
        self._group_of = group_of

    def body(self, message: Message) -> Any:
        """As a codec's."""
        return self._codec.body(without_position(message))

    def parts(self, body: Any, key: bytes) -> tuple[bytes, bytes]:
        """What stands before and behind the position of a body; raises as `body`."""
        head, tail = self._parts(self._codec, body, key)
        plain = body if isinstance(body, bytes) else head
        if len(plain) + _ROOM > self._limit.size:
            self._limit.check(plain + bytes(_ROOM))  # which a receiver would refuse
        return head, tail

    def open(self, member: bytes, key: bytes) -> Opened:
        """As a codec's; what has a position has it as users know it."""
        return self.open_in(member, key, self._group_of(key))

    def open_in(self, member: bytes, key: bytes, group: str | None) -> Opened:
        """As `open`, for a group whose name is known."""
        if self._is_framed(member):
            opened = self._codec.open(member[1 + ID_SIZE :], key)
            value: Any = member[1 : 1 + ID_SIZE].decode()
        else:
            opened = self._codec.open(member, key)
            value = opened[1].pop(POSITION, None)
        if value is not None and (place := read_wire(value, group)) is not None:
            opened[1][POSITION] = place
        return opened

    def _is_framed(self, member: bytes) -> bool:
        """Whether the position stands in front, as no unique bytes would have it."""
        if not member.startswith(_FRAME):
            return False
        text = member[1 : 1 + ID_SIZE]
        return text.isascii() and read_id(text.decode()) is not None


class InGroup:
    """Opens what is kept of one group, whose keys don't tell its name."""

    def __init__(self, codec: PlacedCodec, group: str) -> None:
        self._codec = codec
        self._group = group

    def open(self, member: bytes, key: bytes) -> Opened:
        """As a codec's."""
        return self._codec.open_in(member, key, self._group)


def without_position(message: Message) -> Message:
    """A message without the position that it came with."""
    if not isinstance(message, dict) or POSITION not in message:
        return message
    return {key: value for key, value in message.items() if key != POSITION}


def with_position(body: Any, group: str, position: Position) -> Any:
    """A codec's body with a position, for the envelopes of the core layer."""
    value = f"{id_of(position)}@{group}"
    if not isinstance(body, bytes):
        return {**body, POSITION: value}
    text = value.encode()
    return _with_entry(body, b"\xd9" + bytes((len(text),)) + text)


def parts_for(serializer: Any, is_plain: bool) -> Parts:
    """How positions get into what a serialiser makes; not `is_plain`: in front.

    Where the format is known and readable a position is the last entry of the message,
    so that receivers which know nothing of positions read it, too.
    """
    is_plain = is_plain and isinstance(serializer, BaseMessageSerializer)
    if not is_plain or serializer.crypter or serializer.aead:
        return _framed
    if type(serializer) is JSONSerializer:
        return _in_json
    return _in_map


def _framed(codec: Codec, body: Any, key: bytes) -> tuple[bytes, bytes]:
    return _FRAME, codec.seal(body, None, key)


def _in_map(codec: Codec, body: Any, key: bytes) -> tuple[bytes, bytes]:
    if not isinstance(codec, MsgpackCodec):
        return _framed(codec, body, key)
    return _with_entry(body, _ID_HEADER), b""


def _in_json(codec: Codec, body: Any, key: bytes) -> tuple[bytes, bytes]:
    text = codec.seal(body, None, key)
    comma = b", " if body else b""
    return text[:-1] + comma + b'"' + POSITION.encode() + b'": "', b'"}'


def _with_entry(body: bytes, value: bytes) -> bytes:
    """A packed map with one more entry, or the begin of its value."""
    first, at = body[0], 1
    count = first & 0x0F
    if first in (0xDE, 0xDF):
        at = 3 if first == 0xDE else 5
        count = int.from_bytes(body[1:at], "big")
    return b"".join((_map_header(count + 1), memoryview(body)[at:], _KEY, value))


def _map_header(count: int) -> bytes:
    if count < 16:
        return bytes((0x80 | count,))
    if count < 1 << 16:
        return b"\xde" + count.to_bytes(2, "big")
    return b"\xdf" + count.to_bytes(4, "big")
