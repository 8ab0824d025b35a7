"""Serialisers: the incumbent's bytes and names, and classes written for it."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import time

import channels_redis.serializers as incumbent
import msgpack
import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from channels_redis_fast import serializers
from channels_redis_fast.exceptions import (
    InvalidMessage,
    InvalidSetting,
    SerializerDoesNotExist,
    UnreadableMessage,
)
from channels_redis_fast.serializers import (
    BaseMessageSerializer,
    JSONSerializer,
    MissingSerializer,
    MsgPackSerializer,
    SerializersRegistry,
    registry,
)
from support.golden import MESSAGES as GOLDEN

ROWS = GOLDEN["rows"]
FORMATS = ["msgpack", "json"]
OPTIONS = [
    {},
    {"random_prefix_length": 12, "expiry": 60},
    {"random_prefix_length": 5},
    {"symmetric_encryption_keys": ["new", b"old"], "expiry": 60},
    {"symmetric_encryption_keys": ["new"], "random_prefix_length": 12},
]
MESSAGE = {"type": "chat.message", "nested": [1, {"a": None}], "text": "é"}

messages = st.dictionaries(
    st.text(max_size=10),
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=20),
    max_size=5,
)
formats = pytest.mark.parametrize("format", FORMATS)


def both(format: str, **options):
    ours = registry.get_serializer(format, **options)
    theirs = incumbent.registry.get_serializer(format, **options)
    return ours, theirs


@pytest.mark.parametrize("name", ROWS)
def test_golden_bytes(name) -> None:
    row = ROWS[name]
    message = ast.literal_eval(row["message"])
    if row["channels"] is not None:
        message["__asgi_channel__"] = row["channels"]
    plain = registry.get_serializer(row["format"], random_prefix_length=12)
    golden = bytes.fromhex(row["plain"])
    assert plain.serialize(message)[12:] == golden[12:]
    assert plain.deserialize(golden) == message
    if "token" in row:
        secret = registry.get_serializer(
            row["format"], symmetric_encryption_keys=GOLDEN["keys"]
        )
        assert secret.deserialize(row["token"].encode()) == message


@formats
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@given(message=messages)
def test_speaks_with_the_incumbent(format, options, message) -> None:
    ours, theirs = both(format, **options)
    assert ours.as_bytes(message) == theirs.as_bytes(message)
    assert theirs.deserialize(ours.serialize(message)) == message
    assert ours.deserialize(theirs.serialize(message)) == message
    assert len(ours.serialize(message)) == len(theirs.serialize(message))


def test_the_same_public_names() -> None:
    public = {
        name for name in vars(incumbent) if name[0].isupper() or name == "registry"
    }
    assert public - {"Fernet", "MultiFernet"} <= set(vars(serializers))
    for name in ("random_prefix_length", "expiry", "crypter"):
        assert name in vars(registry.get_serializer("json", ["a key"], 12, 60))


def test_attributes_for_the_fast_path() -> None:
    plain = registry.get_serializer("msgpack", random_prefix_length=12)
    assert type(plain) is MsgPackSerializer
    assert len(plain.unique.next()) == 12
    assert plain.crypter is None
    assert plain.aead is None
    secret = registry.get_serializer("msgpack", symmetric_encryption_keys=["a key"])
    assert secret.unique.next() == b""
    assert secret.crypter.open(secret.crypter.seal(b"payload"), 10) == b"payload"


# --- Encryption


@formats
def test_formats_change_without_downtime(format) -> None:
    options = {"symmetric_encryption_keys": ["a key"], "random_prefix_length": 12}
    fernet = registry.get_serializer(format, **options, encryption="fernet")
    gcm = registry.get_serializer(format, **options, encryption="aes-gcm")
    assert fernet.serialize(MESSAGE, b"key")[12:16] == b"gAAA"
    assert gcm.serialize(MESSAGE, b"key")[12:14] == b"\xc1\x01"
    for sender in (fernet, gcm):
        for receiver in (fernet, gcm):
            sealed = sender.serialize(MESSAGE, b"key")
            assert receiver.deserialize(sealed, b"key") == MESSAGE


def test_a_frame_of_another_channel() -> None:
    gcm = registry.get_serializer("json", ["a key"], 12, 60, encryption="aes-gcm")
    with pytest.raises(UnreadableMessage):
        gcm.deserialize(gcm.serialize(MESSAGE, b"key"), b"another key")


@pytest.mark.parametrize("encryption", ["fernet", "aes-gcm"])
@pytest.mark.parametrize(
    ("expiry", "age", "readable"), [(5, 15, True), (5, 17, False), (None, 99999, True)]
)
def test_expiry_and_ten_seconds(encryption, expiry, age, readable) -> None:
    serializer = registry.get_serializer(
        "json", ["a key"], expiry=expiry, encryption=encryption
    )
    made = int(time.time()) - age
    if encryption == "fernet":
        sealed = serializer.crypter.seal_at(b"{}", made, os.urandom(16))
    else:
        sealed = serializer.aead.seal_at(b"{}", b"", made)
    if readable:
        assert serializer.deserialize(sealed) == {}
    else:
        with pytest.raises(UnreadableMessage, match="older than 15 s"):
            serializer.deserialize(sealed)


@pytest.mark.parametrize("keys", [None, [], (), ""])
def test_no_keys(keys) -> None:
    assert registry.get_serializer("json", keys).crypter is None


@pytest.mark.parametrize("keys", ["secret", ["fine", 5], [""], 7])
def test_keys_refused(keys) -> None:
    with pytest.raises(ValueError, match="symmetric_encryption_keys") as caught:
        registry.get_serializer("json", keys)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("encryption", ["aes", "AES-GCM", "", None])
def test_encryption_refused(encryption) -> None:
    with pytest.raises(InvalidSetting, match=f"not {encryption!r}"):
        registry.get_serializer("json", encryption=encryption)


def test_prefix_length_refused() -> None:
    with pytest.raises(InvalidSetting, match="random_prefix_length"):
        registry.get_serializer("json", random_prefix_length=-1)


# --- Messages


@formats
@pytest.mark.parametrize("message", [{"a": object()}, {"a": {1}}, {"a": 2j}])
def test_messages_refused(format, message) -> None:
    with pytest.raises(InvalidMessage, match="'a'"):
        registry.get_serializer(format).serialize(message)


@formats
@given(payload=st.binary(max_size=60))
def test_any_bytes(format, payload) -> None:
    for serializer in (
        registry.get_serializer(format),
        registry.get_serializer(format, ["a key"], 12, 60),
    ):
        with contextlib.suppress(UnreadableMessage):
            assert isinstance(serializer.deserialize(payload), dict)


@formats
@pytest.mark.parametrize("found", [[1], "text", 5, None])
def test_no_message(format, found) -> None:
    serializer = registry.get_serializer(format)
    with pytest.raises(UnreadableMessage, match="not a message"):
        serializer.deserialize(serializer.as_bytes(found))


# --- The registry


def test_unknown_format() -> None:
    with pytest.raises(SerializerDoesNotExist, match=r"'mspack'.*'msgpack'"):
        registry.get_serializer("mspack")
    with pytest.raises(KeyError, match="5"):
        registry.get_serializer(5)
    with pytest.raises(SerializerDoesNotExist, match="no serializer for 'json'"):
        SerializersRegistry().get_serializer("json")


class Whole:
    """A class with the two methods, as the incumbent lets one register."""

    def __init__(self, **options) -> None:
        self.options = options

    def serialize(self, message):
        return repr(message).encode()

    def deserialize(self, message):
        return ast.literal_eval(message.decode())


def test_register() -> None:
    mine = SerializersRegistry()
    mine.register_serializer("mine", Whole)
    made = mine.get_serializer("mine", expiry=60)
    assert made.options == {"expiry": 60}
    assert made.deserialize(made.serialize(MESSAGE)) == MESSAGE
    mine.register_serializer("mine", JSONSerializer)
    assert type(mine.get_serializer("mine")) is JSONSerializer


@pytest.mark.parametrize("wrong", [None, 5, "json", object, JSONSerializer(), dict])
def test_register_refuses(wrong) -> None:
    for error in (TypeError, AssertionError):
        with pytest.raises(error, match="serialize and deserialize"):
            SerializersRegistry().register_serializer("mine", wrong)


# --- Classes written for channels_redis: each must work on both bases


BASES = [incumbent, serializers]
on_both = pytest.mark.parametrize("module", BASES, ids=["incumbent", "ours"])


@on_both
def test_overridden_bytes(module) -> None:
    class Reversed(module.BaseMessageSerializer):
        def as_bytes(self, message):
            return repr(message).encode()[::-1]

        def from_bytes(self, message):
            return ast.literal_eval(message[::-1].decode())

    made = Reversed(symmetric_encryption_keys=["a key"], random_prefix_length=12)
    assert made.deserialize(made.serialize(MESSAGE)) == MESSAGE


@on_both
def test_extended_bytes(module) -> None:
    class Sets(module.MsgPackSerializer):
        def as_bytes(self, message):
            return super().as_bytes(message, default=sorted)

        def from_bytes(self, message):
            return super().from_bytes(message, strict_map_key=False)

    made = Sets(expiry=60)
    assert made.deserialize(made.serialize({"a": {2, 1}, 5: 6})) == {"a": [1, 2], 5: 6}


@on_both
def test_static_methods(module) -> None:
    class Compact(module.JSONSerializer):
        as_bytes = staticmethod(lambda message: json.dumps(message).encode())

    assert Compact().deserialize(Compact().serialize(MESSAGE)) == MESSAGE
    assert module.MsgPackSerializer.as_bytes(MESSAGE) == msgpack.packb(MESSAGE)
    assert module.MsgPackSerializer.from_bytes(b"\x80") == {}
    assert module.JSONSerializer.from_bytes(b"{}") == {}


@on_both
def test_overridden_serialize(module) -> None:
    class Marked(module.JSONSerializer):
        def serialize(self, message):
            return b"mark" + self.crypter.encrypt(self.as_bytes(message))

        def deserialize(self, message):
            return self.from_bytes(self.crypter.decrypt(message[4:], self.expiry))

    made = Marked(["a key"], expiry=60)
    assert made.deserialize(made.serialize(MESSAGE)) == MESSAGE


@on_both
def test_extended_serialize(module) -> None:
    class Counted(module.MsgPackSerializer):
        def serialize(self, message):
            return super().serialize({**message, "count": 1})

        def deserialize(self, message):
            found = super().deserialize(message)
            found["count"] += 1
            return found

    made = Counted(random_prefix_length=12)
    assert made.deserialize(made.serialize(MESSAGE)) == {**MESSAGE, "count": 2}


@on_both
def test_overridden_fernet(module) -> None:
    own = Fernet.generate_key()

    class Keyed(module.JSONSerializer):
        def make_fernet(self, key):
            assert isinstance(super().make_fernet(key), Fernet)
            return Fernet(own)

    made = Keyed(["a key"], expiry=60)
    sealed = made.serialize(MESSAGE)
    assert json.loads(Fernet(own).decrypt(sealed)) == MESSAGE
    assert made.deserialize(sealed) == MESSAGE


@on_both
def test_overridden_crypter(module) -> None:
    class Upside:
        def encrypt(self, data):
            return data[::-1]

        def decrypt(self, data, ttl=None):
            assert ttl == 70
            return data[::-1]

    class Own(module.JSONSerializer):
        def _setup_encryption(self, symmetric_encryption_keys):
            self.crypter = Upside()

    made = Own(expiry=60)
    assert made.serialize({}) == b"}{"
    assert made.deserialize(b"}{") == {}


def test_missing() -> None:
    class Absent(MissingSerializer):
        exception = ImportError("no such package")

    with pytest.raises(ImportError, match="no such package"):
        Absent(expiry=60)
    with pytest.raises(NotImplementedError, match="MissingSerializer"):
        MissingSerializer()


def test_base_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseMessageSerializer()
