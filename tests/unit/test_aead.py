"""AES-GCM frames: laid out as documented, bound to their channel, nonces used once."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import sys
import threading
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from channels_redis_fast.exceptions import InvalidSetting, UnreadableMessage
from channels_redis_fast.wire import _aead
from channels_redis_fast.wire._aead import AesGcmFrames
from channels_redis_fast.wire._framing import FernetFrames
from support import reference_messages as reference
from support.forking import in_child, needs_fork

NOW = 1_700_000_000
KEYS = ["the first", b"the second"]
CONTEXT = b"asgispecific.0123456789abcdef!"

payloads = st.binary(max_size=100)

frames = AesGcmFrames(KEYS)
second = AesGcmFrames(KEYS[1:])
oracle = reference.AesGcmFrames(KEYS)
valid = frames.seal_at(b"a payload", CONTEXT, NOW)


def outcome(function, *args):
    try:
        return function(*args)
    except UnreadableMessage:
        return UnreadableMessage


def salt_of(frame: bytes) -> bytes:
    return frame[6:22]


def nonce_of(frame: bytes) -> bytes:
    """What may never be there twice."""
    return frame[6:34]


def test_a_frame_that_never_changes() -> None:
    """Written down, so that no later version forgets how to read it."""
    frame = bytes.fromhex(
        "c101"  # magic and version
        "857e80eb"  # key id
        "000102030405060708090a0b0c0d0e0f"  # salt
        "006553f100"  # seconds
        "00000000000007"  # counter
        "b966df08d0dd01af77"  # "a payload"
        "e4144e23d941de455b6404cd7ad27bf9"  # tag
    )
    assert frames.open_at(frame, CONTEXT, 60, NOW) == b"a payload"


@given(payloads, st.binary(max_size=40), st.integers(0, 2**40 - 1))
def test_layout(payload, context, now) -> None:
    frame = frames.seal_at(payload, context, now)
    counter = int.from_bytes(frame[27:34], "big")
    made = oracle.seal_at(payload, context, now, salt_of(frame), counter)
    assert frame == made
    assert frames.open_at(made, context, 0, now) == payload
    assert oracle.open_at(frame, context, 0, now) == payload


@given(payloads, st.binary(max_size=40), st.binary(min_size=16, max_size=16))
def test_reads_what_another_process_made(payload, context, salt) -> None:
    for key in KEYS:
        other = reference.AesGcmFrames([key])
        frame = other.seal_at(payload, context, NOW, salt, 7)
        assert frames.open_at(frame, context, 60, NOW) == payload


def test_counts() -> None:
    sender = AesGcmFrames(KEYS)
    made = [sender.seal(b"", CONTEXT) for _ in range(1000)]
    assert {salt_of(frame) for frame in made} == {salt_of(made[0])}
    assert [int.from_bytes(frame[27:34], "big") for frame in made] == [*range(1000)]


def test_made_now() -> None:
    earliest = int(time.time())
    made = int.from_bytes(frames.seal(b"", CONTEXT)[22:27], "big")
    assert earliest <= made <= time.time()


def test_reseed_draws_a_salt() -> None:
    sender = AesGcmFrames(KEYS)
    before = sender.seal(b"payload", CONTEXT)
    sender.reseed()
    after = sender.seal(b"payload", CONTEXT)
    assert salt_of(before) != salt_of(after)
    assert frames.open(before, CONTEXT, 60) == frames.open(after, CONTEXT, 60)


def test_draws_a_salt_once_a_fork_was_counted() -> None:
    sender = AesGcmFrames(KEYS)
    before = sender.seal(b"", CONTEXT)
    _aead._count_fork()  # as in a child
    made = [sender.seal(b"", CONTEXT) for _ in range(3)]
    assert {salt_of(frame) for frame in made} != {salt_of(before)}
    assert len({salt_of(frame) for frame in made}) == 1
    assert len({nonce_of(frame) for frame in made}) == 3


@needs_fork
def test_a_fork_draws_a_salt() -> None:
    sender = AesGcmFrames(KEYS)
    before = sender.seal(b"", CONTEXT)
    child = in_child(lambda: sender.seal(b"", CONTEXT))
    grandchild = in_child(lambda: in_child(lambda: sender.seal(b"", CONTEXT)))
    after = sender.seal(b"", CONTEXT)
    assert salt_of(before) == salt_of(after)
    assert len({salt_of(frame) for frame in (before, child, grandchild)}) == 3


def test_threads_share_no_nonce() -> None:
    sender = AesGcmFrames(KEYS)
    made: list[list[bytes]] = [[] for _ in range(6)]

    def work(own: list[bytes]) -> None:
        for number in range(2000):
            own.append(nonce_of(sender.seal_at(b"", CONTEXT, NOW)))
            if number % 500 == 250:
                sender.reseed()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(own,)) for own in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len({nonce for own in made for nonce in own}) == 12_000


def test_bound_to_its_context() -> None:
    frame = frames.seal(b"payload", CONTEXT)
    for other in (b"", CONTEXT + b"x", CONTEXT[:-1], b"asgiworker"):
        with pytest.raises(UnreadableMessage, match="another key or channel"):
            frames.open(frame, other, 60)


def test_keys_rotate() -> None:
    old = second.seal(b"from before", CONTEXT)
    assert frames.open(old, CONTEXT, 60) == b"from before"
    with pytest.raises(UnreadableMessage, match="another key"):
        second.open(frames.seal(b"from after", CONTEXT), CONTEXT, 60)


@pytest.mark.parametrize(
    ("ttl", "age", "readable"),
    [
        (60, 60, True),
        (60, 61, False),
        (60, -60, True),
        (60, -61, False),
        (0.5, 1, False),
        (None, 10**9, True),
        (None, -(10**9), True),
    ],
)
def test_time_to_live(ttl, age, readable) -> None:
    expected = b"a payload" if readable else UnreadableMessage
    assert outcome(frames.open_at, valid, CONTEXT, ttl, NOW + age) == expected
    assert outcome(oracle.open_at, valid, CONTEXT, ttl, NOW + age) == expected


@given(st.integers(0, len(valid) - 1), st.integers(0, 255))
@example(0, 0xC2)
@example(1, 2)  # another version
def test_every_change_is_noticed(at, byte) -> None:
    spoiled = valid[:at] + bytes([byte]) + valid[at + 1 :]
    expected = b"a payload" if spoiled == valid else UnreadableMessage
    assert outcome(frames.open_at, spoiled, CONTEXT, None, NOW) == expected
    assert outcome(oracle.open_at, spoiled, CONTEXT, None, NOW) == expected


@given(st.binary(max_size=80), st.integers(0, 22))
@example(b"", 0)
@example(bytes(28), 22)  # no payload, and no valid tag
def test_any_bytes(tail, known) -> None:
    frame = valid[:known] + tail
    expected = outcome(oracle.open_at, frame, CONTEXT, 60, NOW)
    assert outcome(frames.open_at, frame, CONTEXT, 60, NOW) == expected


def test_another_version() -> None:
    with pytest.raises(UnreadableMessage, match="of version 2, not 1"):
        frames.open_at(b"\xc1\x02" + valid[2:], CONTEXT, 60, NOW)


def test_every_length() -> None:
    for length in range(len(valid)):
        with pytest.raises(UnreadableMessage):
            frames.open_at(valid[:length], CONTEXT, 60, NOW)


def remembered(reader: AesGcmFrames) -> int:
    """How many senders' ciphers it keeps."""
    found = [each for each in gc.get_referents(reader) if isinstance(each, dict)]
    return len(found[0])


def test_made_up_salts_are_not_remembered() -> None:
    reader = AesGcmFrames(KEYS)
    for number in range(3000):
        salt = number.to_bytes(16, "big")
        spoiled = valid[:6] + salt + valid[22:]
        assert outcome(reader.open, spoiled, CONTEXT, None) is UnreadableMessage
    assert remembered(reader) == 0


def test_reads_more_senders_than_it_remembers() -> None:
    reader = AesGcmFrames(KEYS)
    for number in range(1100):
        salt = number.to_bytes(16, "big")
        frame = oracle.seal_at(b"payload", CONTEXT, NOW, salt, 0)
        assert reader.open_at(frame, CONTEXT, 60, NOW) == b"payload"
    assert remembered(reader) == 1024
    first = oracle.seal_at(b"payload", CONTEXT, NOW, bytes(16), 0)
    assert reader.open_at(first, CONTEXT, 60, NOW) == b"payload"


def test_formats_are_told_apart() -> None:
    assert AesGcmFrames.looks_like(valid)
    token = FernetFrames(KEYS).seal(b"payload")
    for other in (b"", token, b'{"type"', b"\x80", b"\xde\x00\x10", b"\xdf\0\0\0\0"):
        assert not frames.looks_like(other)


@pytest.mark.parametrize("keys", ["secret", [], [""], [5]])
def test_keys_refused(keys) -> None:
    with pytest.raises(InvalidSetting, match="symmetric_encryption_keys") as caught:
        AesGcmFrames(keys)
    assert "secret" not in str(caught.value)


def test_without_cryptography(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(InvalidSetting, match=r"channels_redis_fast\[cryptography\]"):
        AesGcmFrames(KEYS)


def test_keys_and_nonces_are_not_copied() -> None:
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copying(frames)


def test_large_payloads() -> None:
    payload = os.urandom(1 << 20)
    assert frames.open(frames.seal(payload, CONTEXT), CONTEXT, 60) == payload


@pytest.mark.parametrize("wrong", [None, "text", bytearray(b"bytes")])
def test_takes_bytes(wrong) -> None:
    for method in (frames.seal, frames.open):
        for args in ((wrong, CONTEXT), (valid, wrong)):
            with pytest.raises(TypeError):
                method(*args)
    with pytest.raises(TypeError):
        frames.looks_like(wrong)
