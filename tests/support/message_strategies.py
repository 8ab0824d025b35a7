"""Messages, envelopes and spoiled envelopes for hypothesis, and how to compare them."""

from __future__ import annotations

import msgpack
from hypothesis import strategies as st

from channels_redis_fast.exceptions import InvalidMessage, UnreadableMessage

CHANNEL = "__asgi_channel__"
KEY = b"\xb0" + CHANNEL.encode()

extensions = st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
stamps = st.builds(
    msgpack.Timestamp, st.integers(-(2**40), 2**40), st.integers(0, 10**9 - 1)
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=40),
    st.binary(max_size=40),
    extensions,
    stamps,
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=10,
)
keys = st.text(max_size=20).filter(lambda key: key != CHANNEL)
messages = st.dictionaries(keys, values, max_size=20)
names = st.text(max_size=300)

# Maps as nobody packs them: any type of key and value, keys twice, channels anywhere.
pieces = st.one_of(
    values.map(msgpack.packb),
    st.just(KEY),
    st.just(b"\xd9\x10" + CHANNEL.encode()),
    st.sampled_from([msgpack.packb("a"), msgpack.packb(["a"]), b"\x91\xa1\xff"]),
    st.binary(min_size=1, max_size=9),
)
odd_maps = st.builds(
    lambda head, parts: head + b"".join(parts),
    st.sampled_from(
        [bytes([0x80 | count]) for count in range(5)]
        + [
            b"\xde\x00\x02",
            b"\xdf\0\0\0\x01",
            b"\xde",
            b"\xdf\xff\xff\xff\xff",
            b"\x90",
        ]
    ),
    st.lists(pieces, max_size=9),
)


def outcome(function, *args):
    """What comes back, types included, or the class of our exception."""
    try:
        return _exact(function(*args))
    except (InvalidMessage, UnreadableMessage) as error:
        return type(error)


def _exact(value):
    """True == 1 and 1 == 1.0, but they are different messages."""
    if isinstance(value, dict):
        items = value.items()
        return dict, [(_exact(key), _exact(inner)) for key, inner in items]
    if isinstance(value, (list, tuple)):
        return type(value), [_exact(inner) for inner in value]
    return type(value), repr(value)


def mutated(payload: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    spoiled = bytearray(payload)
    for at, byte in changes:
        spoiled[at % len(spoiled)] = byte
    return bytes(spoiled[: len(spoiled) - cut])


changes = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4)
