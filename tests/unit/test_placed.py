"""Positions in the bytes of messages, of every format."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from channels_redis_fast.exceptions import InvalidMessage
from channels_redis_fast.types import POSITION, position_of
from channels_redis_fast.wire.codec import SizeLimit, codec_of
from channels_redis_fast.wire.formats import JSONSerializer, MsgPackSerializer
from channels_redis_fast.wire.placed import (
    PlacedCodec,
    parts_for,
    with_position,
)
from channels_redis_fast.wire.positions import id_of, read_id, read_placed

AT = (1795867294365, 42)
ID = "1795867294365-000000000042"
KEYS = ["k" * 32]
LIMIT = SizeLimit(100_000, InvalidMessage)
SERIALIZERS: dict[str, Any] = {
    "msgpack": MsgPackSerializer(),
    "json": JSONSerializer(),
    "fernet": MsgPackSerializer(KEYS),
    "aes-gcm": JSONSerializer(KEYS, encryption="aes-gcm"),
}
MESSAGES: list[dict[str, Any]] = [
    *({}, {"type": "t"}, {"list": [1, {"a": 2}]}, {str(n): n for n in range(15)}),
    *({str(n): n for n in range(16)}, {str(n): 0 for n in range(9_000)}),
]


def placed_codec(serializer: Any, is_plain: bool = True) -> PlacedCodec:
    parts = parts_for(serializer, is_plain)
    return PlacedCodec(codec_of(serializer, LIMIT), LIMIT, parts)


def at_place(codec: PlacedCodec, message: dict[str, Any]) -> bytes:
    """A message as Redis keeps it."""
    head, tail = codec.parts(codec.body(message), b"key")
    return head + ID.encode() + tail


@pytest.mark.parametrize("name", SERIALIZERS)
@pytest.mark.parametrize("message", MESSAGES, ids=len)
def test_a_position_and_back(name: str, message: dict[str, Any]) -> None:
    codec = placed_codec(SERIALIZERS[name])
    _, found, _ = codec.open_in(at_place(codec, message), b"key", "g")
    assert found == {**message, POSITION: f"g@{ID}"}


@pytest.mark.parametrize("message", MESSAGES, ids=len)
def test_others_read_a_plain_map(message: dict[str, Any]) -> None:
    for name, read in (("msgpack", msgpack.unpackb), ("json", json.loads)):
        kept = at_place(placed_codec(SERIALIZERS[name]), message)
        assert list(read(kept).items()) == [*message.items(), (POSITION, ID)]


def test_a_large_map() -> None:
    codec = placed_codec(SERIALIZERS["msgpack"])
    body = codec.body({})
    for count in (0xFFFE, 0xFFFF, 0x10000):
        message = dict.fromkeys(map(str, range(count)), 0)
        head, _ = codec._parts(codec._codec, msgpack.packb(message), b"")
        assert len(msgpack.unpackb(head + ID.encode())) == count + 1
    assert body == b"\x80"


def test_unique_bytes_may_be_any() -> None:
    """What stands in front of an envelope is no frame, whatever it is."""
    serializer = MsgPackSerializer(random_prefix_length=12)
    inner = codec_of(serializer, LIMIT)
    codec = PlacedCodec(inner, LIMIT, parts_for(serializer, True))
    body = with_position(codec.body({"type": "t"}), "g", AT)
    member = codec.seal_list(body, [b"a!b"], b"key")
    for front in (b"\xc1" + bytes(11), (b"\xc1" + ID.encode())[:12]):
        named, message, _ = codec.open(front + member[12:], b"key")
        assert (named, position_of(message)) == (["a!b"], f"g@{ID}")


@pytest.mark.parametrize("name", SERIALIZERS)
def test_what_was_received_is_sent_without_its_position(name: str) -> None:
    codec = placed_codec(SERIALIZERS[name])
    message = {"type": "t", POSITION: f"g@{ID}"}
    sealed = codec.seal(codec.body(message), None, b"key")
    assert codec.open_in(sealed, b"key", "g")[1] == {"type": "t"}


@pytest.mark.parametrize("value", [1, None, "", "g@" + ID, ID[:-1], ID + "x", [ID]])
def test_what_is_no_position_on_its_way_is_taken_out(value: Any) -> None:
    codec = placed_codec(SERIALIZERS["msgpack"])
    payload = msgpack.packb({"type": "t", POSITION: value})
    assert codec.open_in(payload, b"key", "g")[1] == {"type": "t"}


@pytest.mark.parametrize("name", ["msgpack", "json"])
def test_a_message_that_would_be_too_long_is_refused_when_sent(name: str) -> None:
    codec = placed_codec(SERIALIZERS[name])
    with pytest.raises(InvalidMessage, match="max_message_size"):
        at_place(codec, {"text": "x" * 99_900})


def test_positions_as_text() -> None:
    assert id_of(AT) == ID
    assert read_id(ID) == AT
    assert read_placed("g", f"g@{ID}") == AT
    for text in (ID, f"x@{ID}", f"g@{ID} ", "g@", f"g@{ID}\n", f"g@{ID[:-1]}٢"):
        assert read_placed("g", text) is None
