"""Envelopes: the incumbent's bytes; whatever comes back is read or refused."""

from __future__ import annotations

import ast
import threading
import tracemalloc

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from channels_redis_fast.exceptions import InvalidMessage, UnreadableMessage
from channels_redis_fast.wire import _envelope
from support import reference_messages as reference
from support.golden import MESSAGES as GOLDEN
from support.message_strategies import (
    KEY,
    changes,
    messages,
    mutated,
    names,
    odd_maps,
    outcome,
)

ROWS = {name: row for name, row in GOLDEN["rows"].items() if row["format"] == "msgpack"}
CHANNEL = reference.CHANNEL

# --- What is written


@pytest.mark.parametrize("name", ROWS)
def test_golden_bytes(name) -> None:
    row = ROWS[name]
    message, channels = ast.literal_eval(row["message"]), row["channels"]
    prefix = bytes.fromhex(GOLDEN["prefix"])
    body = _envelope.pack(message)
    if channels is None:
        written = prefix + body
    elif isinstance(channels, str):
        written = _envelope.splice(prefix, body, channels)
    else:
        encoded = [channel.encode() for channel in channels]
        written = _envelope.splice_list(prefix, body, encoded)
    assert written.hex() == row["plain"]
    expected = [channels] if isinstance(channels, str) else channels
    found = _envelope.unpack(written, len(prefix))
    assert found[:2] == (expected, message)


@given(messages)
def test_pack_is_msgpack(message) -> None:
    assert _envelope.pack(message) == msgpack.packb(message)


@given(messages, names, st.binary(max_size=20))
@pytest.mark.slow
def test_splice(message, name, head) -> None:
    whole = head + msgpack.packb({**message, CHANNEL: name})
    body = _envelope.pack(message)
    assert _envelope.splice(head, body, name) == whole
    assert _envelope.splice(head, body, name.encode()) == whole
    assert reference.splice(head, body, name) == whole


@given(messages, st.lists(names, max_size=40), st.binary(max_size=20))
def test_splice_list(message, names, head) -> None:
    whole = head + msgpack.packb({**message, CHANNEL: names})
    body = _envelope.pack(message)
    encoded = [name.encode() for name in names]
    assert _envelope.splice_list(head, body, encoded) == whole
    assert reference.splice_list(head, body, encoded) == whole


@pytest.mark.parametrize("count", [0, 1, 14, 15, 16, 17, 65534, 65535, 65536])
def test_entry_counts(count) -> None:
    message = {str(number): number for number in range(count)}
    whole = _envelope.splice(b"", _envelope.pack(message), "name")
    assert whole == msgpack.packb({**message, CHANNEL: "name"})
    assert _envelope.unpack(whole) == (["name"], message, True)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 65535, 65536, 70000])
def test_name_counts(count) -> None:
    names = [f"specific!{number}" for number in range(count)]
    encoded = [name.encode() for name in names]
    whole = _envelope.splice_list(b"", _envelope.pack({}), encoded)
    assert whole == msgpack.packb({CHANNEL: names})
    assert _envelope.unpack(whole) == (names, {}, True)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 255, 256, 65535, 65536])
def test_name_sizes(size) -> None:
    name = "x" * size
    body = _envelope.pack({"type": "x"})
    whole = msgpack.packb({"type": "x", CHANNEL: name})
    assert _envelope.splice(b"", body, name) == whole
    assert _envelope.unpack(whole) == ([name], {"type": "x"}, True)
    whole = msgpack.packb({"type": "x", CHANNEL: [name, name]})
    assert _envelope.splice_list(b"", body, [name.encode()] * 2) == whole
    assert _envelope.unpack(whole) == ([name, name], {"type": "x"}, True)


def test_bumps_a_header_wider_than_needed() -> None:
    for body in (b"\xde\x00\x01\xa1a\x01", b"\xdf\x00\x00\x00\x01\xa1a\x01"):
        whole = msgpack.packb({"a": 1, CHANNEL: "name"})
        assert _envelope.splice(b"", body, "name") == whole


@pytest.mark.parametrize(
    ("body", "channel", "error"),
    [
        (b"", "name", ValueError),
        (b"\x90", "name", ValueError),
        (b"\xde\x00", "name", ValueError),
        (b"\xdf\xff\xff\xff\xff", "name", ValueError),  # one more doesn't fit
        (b"\x80", "\ud800", UnicodeEncodeError),
        (b"\x80", 5, TypeError),
        (b"\x80", bytearray(b"name"), TypeError),
        (bytearray(b"\x80"), "name", TypeError),
        (None, "name", TypeError),
    ],
)
def test_splice_refuses(body, channel, error) -> None:
    with pytest.raises(error):
        _envelope.splice(b"", body, channel)
    names = channel.encode() if channel == "name" else channel
    with pytest.raises((error, TypeError)):
        _envelope.splice_list(b"", body, [names])


@pytest.mark.parametrize("channels", [None, (b"name",), [b"name", "name"], [None]])
def test_splice_list_refuses(channels) -> None:
    with pytest.raises(TypeError):
        _envelope.splice_list(b"", b"\x80", channels)


# --- What is refused when packing, and how it is said


class Odd(dict):
    """Means what its `items()` say, as for the incumbent."""

    def items(self):
        return {"other": self["real"]}.items()


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def test_dict_subclasses() -> None:
    assert _envelope.pack(Odd(real=1)) == msgpack.packb({"other": 1})
    assert _envelope.pack({"a": Odd(real=1)}) == msgpack.packb({"a": {"other": 1}})


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (None, "None"),
        ([("type", "x")], "'type'"),
        ("text", "'text'"),
        ({CHANNEL: 1}, CHANNEL),
        ({"type": "x", "user": {1, 2}}, r"message\['user'\].*set.*\{1, 2\}"),
        ({"type": "x", "id": 2**64}, f"message.'id'.*{2**64}"),
        ({"type": "x", "id": -(2**63) - 1}, "'id'"),
        ({"type": "x", "text": "\ud800"}, "'text'"),
        ({"type": "x", object(): 1}, "object"),
        ({"type": "x", "deep": nested(2000)}, "'deep'"),
        ({"type": "x" * 99, "user": object()}, "'user'"),
    ],
)
def test_pack_refuses(message, words) -> None:
    with pytest.raises(InvalidMessage, match=words) as caught:
        _envelope.pack(message)
    assert len(str(caught.value)) < 300
    if isinstance(message, dict) and CHANNEL not in message:
        assert isinstance(caught.value.__cause__, reference.PACKING)


def test_what_only_fails_together_is_named_whole() -> None:
    class Once:
        """Packs never; but `complaint` can't see it in `items()` the second time."""

    class Changing(dict):
        calls = 0

        def items(self):
            Changing.calls += 1
            return {"a": Once()}.items() if Changing.calls == 1 else {}.items()

    with pytest.raises(InvalidMessage, match="the message can't be packed"):
        _envelope.pack({"inner": Changing(x=1)})


def test_errors_of_the_message_itself_come_through() -> None:
    class Broken(dict):
        def items(self):
            raise KeyError("mine")

    for message in (Broken(a=1), {"inner": Broken(a=1)}):
        with pytest.raises(KeyError, match="mine"):
            _envelope.pack(message)
    assert _envelope.pack({"a": 1}) == msgpack.packb({"a": 1})


def test_packing_within_packing() -> None:
    class Nesting(dict):
        def items(self):
            assert _envelope.pack({"inner": 1}) == msgpack.packb({"inner": 1})
            return dict(self).items()

    message = {"before": "x" * 50, "nested": Nesting(a=1), "after": 2}
    plain = {**message, "nested": {"a": 1}}
    for _ in range(3):
        assert _envelope.pack(message) == msgpack.packb(plain)


def test_a_failure_leaves_nothing_behind() -> None:
    for _ in range(20):
        with pytest.raises(InvalidMessage):
            _envelope.pack({"long": "x" * 1000, "bad": object()})
        assert _envelope.pack({"a": 1}) == b"\x81\xa1a\x01"


def test_big_messages_leave_no_big_buffers() -> None:
    big = {"text": "x" * (1 << 23)}
    tracemalloc.start()
    try:
        for _ in range(3):
            assert len(_envelope.pack(big)) > 1 << 23
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()


def test_threads() -> None:
    class Yielding(dict):
        """Python code within packing, where threads may switch."""

        def items(self):
            for _ in range(50):
                pass
            return dict(self).items()

    failures = []

    def work(number: int) -> None:
        message = {"n": number, "inner": Yielding(text=str(number) * 30)}
        expected = msgpack.packb({"n": number, "inner": dict(message["inner"])})
        for _ in range(300):
            if _envelope.pack(message) != expected:
                failures.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# --- What is read


@given(st.binary(max_size=60), st.integers(-1, 61))
@example(b"", 0)
@example(b"\xc1", 0)
@example(b"\x80\x80", 0)
def test_any_bytes(payload, start) -> None:
    expected = outcome(reference.unpack, payload, start)
    assert outcome(_envelope.unpack, payload, start) == expected


@given(odd_maps)
@example(b"\x82" + KEY + b"\xa1a" + KEY + b"\xa1b")  # the last counts
@example(b"\x82" + KEY + b"\xa1a" + KEY + b"\x01")
@example(b"\x82" + KEY + b"\x01" + KEY + b"\xa1b")
@example(b"\x82" + KEY + b"\xa1a\xa1b\x01")
@example(b"\x81\xd9\x10" + CHANNEL.encode() + b"\x91\xa1a")
@example(b"\x81" + KEY)
@example(b"\x81" + KEY + b"\x92\xa1a")
@example(b"\x81" + KEY + b"\xdd\xff\xff\xff\xff")
@example(b"\x81" + KEY + b"\xdc\x00")
@example(b"\x81" + KEY + b"\xdb\xff\xff\xff\xff")
@example(b"\x81" + KEY + b"\x91\xd9")
@example(b"\x81" + KEY + b"\x91\xda\x00")
@example(b"\x81" + KEY + b"\xa1\xff")
@example(b"\x81" + KEY + b"\xc4\x01a")
@example(b"\x81" + KEY + b"\x91\xc4\x01a")
@example(b"\x81" + KEY + b"\x90")
@example(b"\x81" + KEY + b"\xa1a\xa1b")
@example(b"\x81\xa1a" + b"\x91" * 2000 + b"\x01")  # deeper than msgpack goes
@example(b"\x81\xa1a\xd4\xff\x00")  # no timestamp
@example(b"\x81\xa1a\xd4\x80\x00")  # no extension type of an application's
@example(b"\x81\x01\x01")  # no str key
def test_odd_maps(payload) -> None:
    expected = outcome(reference.unpack, payload)
    assert outcome(_envelope.unpack, payload) == expected


@given(messages, st.none() | names | st.lists(names), changes, st.integers(0, 3))
def test_mutated_envelopes(message, channels, changes, cut) -> None:
    whole = message if channels is None else {**message, CHANNEL: channels}
    payload = mutated(msgpack.packb(whole), changes, cut)
    expected = outcome(reference.unpack, payload)
    assert outcome(_envelope.unpack, payload) == expected


@given(messages, st.none() | names | st.lists(names), st.binary(max_size=12))
def test_what_was_packed_comes_back(message, channels, head) -> None:
    body = _envelope.pack(message)
    if channels is None:
        payload = head + body
    elif isinstance(channels, str):
        payload, channels = _envelope.splice(head, body, channels), [channels]
    else:
        encoded = [name.encode() for name in channels]
        payload = _envelope.splice_list(head, body, encoded)
    found = _envelope.unpack(payload, len(head))
    assert found[:2] == (channels, msgpack.unpackb(body))
    kinds = {type(value) for value in found[1].values()}
    assert found[2] == kinds.isdisjoint({dict, list})


def test_every_first_byte() -> None:
    for first in range(256):
        for tail in (b"", b"\x00" * 3, b"\x00" * 40, b"\x01" * 40, b"\xff" * 40):
            for payload in (
                bytes([first]) + tail,
                b"\x81\xa1a" + bytes([first]) + tail,
            ):
                expected = outcome(reference.unpack, payload)
                assert outcome(_envelope.unpack, payload) == expected, payload


SIZES = [0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536]
SIZED = {
    "str": lambda size: "x" * size,
    "bytes": lambda size: b"x" * size,
    "ext": lambda size: msgpack.ExtType(5, b"x" * size),
    "list": lambda size: [None] * size,
    "dict": lambda size: {str(number): 1 for number in range(size)},
}
NUMBERS = [sign * (1 << bits) for bits in range(63) for sign in (1, -1)]


@pytest.mark.parametrize("kind", SIZED)
@pytest.mark.slow
def test_values_of_all_sizes(kind) -> None:
    for size in [*SIZES, 2, 4, 8]:
        for message in ({"a": SIZED[kind](size), "z": 1}, {"a": [SIZED[kind](size)]}):
            for payload in (
                msgpack.packb(message),
                msgpack.packb({**message, CHANNEL: "name"}),
                msgpack.packb(message)[:-1],
            ):
                expected = outcome(reference.unpack, payload)
                assert outcome(_envelope.unpack, payload) == expected


def test_numbers() -> None:
    for value in [*NUMBERS, 2**64 - 1, 0.1, True, False, None]:
        check_number(value)


def check_number(value) -> None:
    whole = _envelope.splice(b"", _envelope.pack({"a": [value], "b": value}), "name")
    assert _envelope.unpack(whole) == (["name"], {"a": [value], "b": value}, False)


@pytest.mark.parametrize("bomb", [b"\xdd\xff\xff\xff\xff", b"\xdc\x7f\xff" * 300])
def test_counts_of_nothing_allocate_nothing(bomb) -> None:
    payload = b"\x81\xa1a" + bomb + bytes(1 << 15)
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableMessage):
            _envelope.unpack(payload)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_errors_show_little_of_what_they_read() -> None:
    with pytest.raises(UnreadableMessage) as caught:
        _envelope.unpack(b"\xc1" + b"x" * 10**6)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("payload", [None, "text", bytearray(b"\x80")])
def test_unpack_takes_bytes(payload) -> None:
    with pytest.raises(TypeError):
        _envelope.unpack(payload)
