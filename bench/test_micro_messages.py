"""Envelopes and frames: compiled, readable Python, and the incumbent.

Every row is 1,000 calls, so that microseconds read as nanoseconds per message; but 10
calls where the group says "1,000 names". The loop around the calls costs the same in
each row of a group.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import random
import time
from collections import deque
from collections.abc import Callable

import msgpack
import pytest
from cryptography.fernet import Fernet, MultiFernet

from channels_redis_fast.wire import _aead, _envelope, _framing
from support import reference_messages as reference

KEY = "__asgi_channel__"
PROCESS = "specific." + "0123456789abcdef" * 2 + "!"
CHANNEL = PROCESS + "fedcba9876543210" * 2
NAMES = [PROCESS + f"{number:032x}" for number in range(1000)]
ENCODED = [name.encode() for name in NAMES]
CONTEXT = b"asgi" + PROCESS.encode()
SECRET = "a key of some length, as in the settings"
MESSAGES = {
    "flat": {
        "type": "chat.message",
        "room": "lobby",
        "user": "alice",
        "text": "Hello everybody, how are you today?",
        "sent": 1700000000.25,
        "id": 12345,
    },
    "nested": {
        "type": "game.state",
        "game": {"id": 7, "name": "go", "size": [19, 19], "rules": {"komi": 6.5}},
        "players": [
            {"id": number, "name": f"player {number}", "clock": 60.5, "ready": True}
            for number in range(4)
        ],
        "moves": list(range(40)),
    },
}


def group(name: str) -> pytest.MarkDecorator:
    return pytest.mark.benchmark(group=name, max_time=0.1, disable_gc=True)


def by(**functions: Callable) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("function", functions.values(), ids=functions)


def each_shape(name: str) -> pytest.MarkDecorator:
    """A group of its own for each shape."""
    shapes = [
        pytest.param(shape, marks=group(f"{name}, {shape} message"))
        for shape in MESSAGES
    ]
    return pytest.mark.parametrize("shape", shapes)


def repeat(function: Callable, *args, times: int = 1000) -> None:
    """Call a function often; `starmap` adds the same to all of them."""
    deque(itertools.starmap(function, itertools.repeat(args, times)), maxlen=0)


# --- Envelopes


def compiled_pack(message: dict) -> bytes:
    return _envelope.splice(b"", _envelope.pack(message), CHANNEL)


def reference_pack(message: dict) -> bytes:
    return reference.splice(b"", reference.pack(message), CHANNEL)


def incumbent_pack(message: dict) -> bytes:
    message = dict(message.items())
    message[KEY] = CHANNEL
    return msgpack.packb(message)


def incumbent_unpack(payload: bytes) -> tuple:
    message = msgpack.unpackb(payload)
    return message.pop(KEY), message


@each_shape("pack for one channel")
@by(
    compiled=compiled_pack,
    reference=reference_pack,
    incumbent=incumbent_pack,
    floor=msgpack.Packer().pack,
)
def test_pack(benchmark, function, shape) -> None:
    benchmark(repeat, function, MESSAGES[shape])


@each_shape("splice one channel into a packed message")
@by(compiled=_envelope.splice, reference=reference.splice)
def test_splice(benchmark, function, shape) -> None:
    body = _envelope.pack(MESSAGES[shape])
    benchmark(repeat, function, b"0123456789ab", body, CHANNEL)


@each_shape("unpack for one channel")
@by(
    compiled=_envelope.unpack,
    reference=reference.unpack,
    incumbent=incumbent_unpack,
)
def test_unpack(benchmark, function, shape) -> None:
    benchmark(repeat, function, compiled_pack(MESSAGES[shape]))


def incumbent_pack_list(message: dict) -> bytes:
    return msgpack.packb({**message, KEY: NAMES})


@each_shape("pack for 1,000 names")
@by(
    compiled=lambda message: _envelope.splice_list(
        b"", _envelope.pack(message), ENCODED
    ),
    reference=lambda message: reference.splice_list(
        b"", reference.pack(message), ENCODED
    ),
    incumbent=incumbent_pack_list,
)
def test_pack_list(benchmark, function, shape) -> None:
    benchmark(repeat, function, MESSAGES[shape], times=10)


@each_shape("unpack for 1,000 names")
@by(
    compiled=_envelope.unpack,
    reference=reference.unpack,
    incumbent=incumbent_unpack,
)
def test_unpack_list(benchmark, function, shape) -> None:
    payload = incumbent_pack_list(MESSAGES[shape])
    benchmark(repeat, function, payload, times=10)


# --- Frames

compiled_fernet = _framing.FernetFrames([SECRET])
reference_fernet = reference.FernetFrames([SECRET])
digest = hashlib.sha256(SECRET.encode()).digest()
incumbent_fernet = MultiFernet([Fernet(base64.urlsafe_b64encode(digest))])
compiled_gcm = _aead.AesGcmFrames([SECRET])
reference_gcm = reference.AesGcmFrames([SECRET])
compiled_unique = _framing.UniqueBytes(12)
reference_unique = reference.UniqueBytes(12)
counter = itertools.count()
salt = os.urandom(16)


def reference_fernet_seal(payload: bytes) -> bytes:
    return reference_fernet.seal_at(payload, int(time.time()), os.urandom(16))


def reference_fernet_open(token: bytes, ttl: int) -> bytes:
    return reference_fernet.open_at(token, ttl, int(time.time()))


def reference_gcm_seal(payload: bytes) -> bytes:
    now = int(time.time())
    return reference_gcm.seal_at(payload, CONTEXT, now, salt, next(counter))


def reference_gcm_open(frame: bytes) -> bytes:
    return reference_gcm.open_at(frame, CONTEXT, 70, int(time.time()))


def incumbent_unique() -> bytes:
    return random.getrandbits(8 * 12).to_bytes(12, "big")


@group("unique bytes")
@by(
    compiled=compiled_unique.next,
    reference=reference_unique.next,
    incumbent=incumbent_unique,
)
def test_unique(benchmark, function) -> None:
    benchmark(repeat, function)


@each_shape("encrypt")
@by(
    fernet_compiled=compiled_fernet.seal,
    fernet_reference=reference_fernet_seal,
    fernet_incumbent=incumbent_fernet.encrypt,
    gcm_compiled=lambda payload: compiled_gcm.seal(payload, CONTEXT),
    gcm_reference=reference_gcm_seal,
)
def test_seal(benchmark, function, shape) -> None:
    benchmark(repeat, function, compiled_pack(MESSAGES[shape]))


@each_shape("decrypt")
@by(
    fernet_compiled=compiled_fernet.open,
    fernet_reference=reference_fernet_open,
    fernet_incumbent=incumbent_fernet.decrypt,
)
def test_open_fernet(benchmark, function, shape) -> None:
    token = compiled_fernet.seal(compiled_pack(MESSAGES[shape]))
    benchmark(repeat, function, token, 10**6)


@each_shape("decrypt")
@by(
    gcm_compiled=lambda frame: compiled_gcm.open(frame, CONTEXT, 10**6),
    gcm_reference=reference_gcm_open,
)
def test_open_gcm(benchmark, function, shape) -> None:
    frame = compiled_gcm.seal(compiled_pack(MESSAGES[shape]), CONTEXT)
    benchmark(repeat, function, frame)
