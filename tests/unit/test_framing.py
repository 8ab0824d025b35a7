"""Unique bytes, and Fernet tokens: cryptography's bit for bit, both ways."""

from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import os
import pickle
import sys
import threading
import time

import pytest
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from hypothesis import example, given
from hypothesis import strategies as st

from channels_redis_fast.exceptions import InvalidSetting, UnreadableMessage
from channels_redis_fast.wire import _framing
from channels_redis_fast.wire._framing import FernetFrames, UniqueBytes
from support import reference_messages as reference
from support.forking import in_child, needs_fork
from support.golden import MESSAGES as GOLDEN

TOKENS = {name: row for name, row in GOLDEN["rows"].items() if "token" in row}
NOW = GOLDEN["now"]
IV = bytes.fromhex(GOLDEN["iv"])
KEYS = ["the first", b"the second"]

payloads = st.binary(max_size=100)
ivs = st.binary(min_size=16, max_size=16)


def theirs(key: str | bytes) -> Fernet:
    secret = key.encode() if isinstance(key, str) else key
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(secret).digest()))


frames = FernetFrames(KEYS)
second = FernetFrames(KEYS[1:])
oracle = reference.FernetFrames(KEYS)
fernet = MultiFernet([theirs(key) for key in KEYS])


def outcome(function, *args):
    try:
        return function(*args)
    except (UnreadableMessage, InvalidToken):
        return UnreadableMessage


# --- Unique bytes


@pytest.mark.parametrize("length", range(12, 24))
def test_counted(length) -> None:
    unique = UniqueBytes(length)
    first = unique.next()
    drawn = first[:6]
    for counter, made in enumerate([first, *(unique.next() for _ in range(999))]):
        assert made == reference.unique(drawn, counter, length)
    assert UniqueBytes(length).next()[:6] != drawn


@pytest.mark.parametrize("length", range(12))
def test_random(length) -> None:
    unique = UniqueBytes(length)
    assert unique.length == length
    made = [unique.next() for _ in range(300)]
    assert {len(each) for each in made} == {length}
    expected = {0: 1, 1: 100}.get(length, 290)
    assert len(set(made)) >= expected


def test_one_sender_stays_in_order() -> None:
    unique = UniqueBytes(12)
    made = [unique.next() for _ in range(70_000)]
    assert all(one < other for one, other in itertools.pairwise(made))


def test_reseed_draws_again() -> None:
    unique = UniqueBytes(12)
    before = unique.next()
    unique.reseed()
    after = unique.next()
    assert after[:6] != before[:6]
    assert after[6:] == bytes(6)


def test_draws_again_once_a_fork_was_counted() -> None:
    unique = UniqueBytes(12)
    before = unique.next()
    _framing._count_fork()  # as in a child
    made = [unique.next() for _ in range(3)]
    assert made[0][:6] != before[:6]
    assert [each[6:] for each in made] == [bytes(5) + bytes([n]) for n in range(3)]
    assert len({each[:6] for each in made}) == 1


@needs_fork
def test_a_fork_draws_again() -> None:
    unique = UniqueBytes(12)
    before = unique.next()
    child = in_child(lambda: unique.next() + unique.next())
    after = unique.next()
    assert after[:6] == before[:6]
    assert child[:6] != before[:6]
    assert child[12:18] == child[:6]
    assert (after[6:], child[6:12]) == (bytes(5) + b"\1", bytes(6))


def test_threads_share_no_counter() -> None:
    unique = UniqueBytes(12)
    made: list[list[bytes]] = [[] for _ in range(6)]

    def work(own: list[bytes]) -> None:
        for _ in range(5000):
            own.append(unique.next())

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
    assert len({each for own in made for each in own}) == 30_000


@pytest.mark.parametrize("length", [-1, 12.0, "12", None, True, 2**70, 65537])
def test_length_refused(length) -> None:
    with pytest.raises(InvalidSetting, match="random_prefix_length"):
        UniqueBytes(length)


# --- Fernet tokens


@pytest.mark.parametrize("name", TOKENS)
def test_golden_tokens(name) -> None:
    row = TOKENS[name]
    golden = FernetFrames(GOLDEN["keys"])
    payload = bytes.fromhex(row["plain"])[12:]
    token = row["token"].encode()
    assert golden.seal_at(payload, NOW, IV) == token
    assert golden.open_at(token, 60, NOW + 60) == payload


@given(payloads, st.integers(0, 2**34), ivs)
def test_same_tokens(payload, now, iv) -> None:
    token = frames.seal_at(payload, now, iv)
    assert token == theirs(KEYS[0])._encrypt_from_parts(payload, now, iv)
    assert token == oracle.seal_at(payload, now, iv)
    assert frames.open_at(token, None, 0) == payload


@given(payloads)
def test_both_ways(payload) -> None:
    assert fernet.decrypt(frames.seal(payload), 10) == payload
    assert frames.open(fernet.encrypt(payload), 10) == payload
    assert frames.decrypt(frames.encrypt(payload)) == payload


def test_a_sealed_message_has_its_own_vector_and_the_time() -> None:
    earliest = int(time.time())
    tokens = [frames.seal(b"the same") for _ in range(100)]
    assert len({base64.urlsafe_b64decode(token)[9:25] for token in tokens}) == 100
    for token in tokens:
        assert earliest <= theirs(KEYS[0]).extract_timestamp(token) <= time.time()


@needs_fork
def test_a_fork_shares_no_vector() -> None:
    frames.seal(b"")  # so that there is a cipher context to inherit
    child = in_child(lambda: frames.seal(b"the same"))
    parent = frames.seal(b"the same")
    raw = [base64.urlsafe_b64decode(token) for token in (child, parent)]
    assert raw[0][9:25] != raw[1][9:25]


def test_keys_rotate() -> None:
    old = second.seal(b"from before")
    assert frames.open(old, 10) == b"from before"
    with pytest.raises(UnreadableMessage):
        second.open(frames.seal(b"from after"), 10)


@pytest.mark.parametrize(
    ("ttl", "age", "readable"),
    [
        (60, 60, True),
        (60, 61, False),
        (60, -60, True),
        (60, -61, False),
        (0, 0, True),
        (0, 1, False),
        (0.5, 1, False),
        (60.5, 60, True),
        (None, 10**9, True),
        (None, -(10**9), True),
    ],
)
def test_time_to_live(ttl, age, readable) -> None:
    token = frames.seal_at(b"payload", NOW, IV)
    expected = b"payload" if readable else UnreadableMessage
    assert outcome(frames.open_at, token, ttl, NOW + age) == expected
    assert outcome(oracle.open_at, token, ttl, NOW + age) == expected
    if ttl is not None:
        assert outcome(fernet.decrypt_at_time, token, ttl, NOW + age) == expected


def test_now_is_now() -> None:
    old = frames.seal_at(b"payload", int(time.time()) - 100, IV)
    assert frames.open(old) == frames.open(old, 200) == b"payload"
    with pytest.raises(UnreadableMessage, match="older than 50 s"):
        frames.open(old, 50)
    new = frames.seal_at(b"payload", int(time.time()) + 100, IV)
    with pytest.raises(UnreadableMessage, match="in the future"):
        frames.open(new, 50)


def test_the_largest_time() -> None:
    token = frames.seal_at(b"payload", 2**64 - 1, IV)
    assert frames.open_at(token, None, NOW) == b"payload"
    with pytest.raises(UnreadableMessage):
        frames.open_at(token, 60, NOW)


valid = frames.seal_at(b"a payload of some length", NOW, IV)
# Alphabet and padding of other base64s, spaces that lenient decoders skip.
digits = st.sampled_from(sorted(b"Ag-_+/= \n\x00\xff"))


@pytest.mark.parametrize("length", [0, 16, 32])  # padded with ==, = and nothing
def test_every_change_is_noticed(length) -> None:
    token = frames.seal_at(bytes(length), NOW, IV)
    for at in range(len(token)):
        for byte in range(256):
            spoiled = token[:at] + bytes([byte]) + token[at + 1 :]
            found = outcome(frames.open_at, spoiled, 60, NOW)
            assert (found == bytes(length)) == (spoiled == token)


@pytest.mark.parametrize("length", [0, 16, 32])
def test_what_is_no_digit_stands_for_none(length) -> None:
    """Not for the last one either, of which all bits are set."""
    for number in range(300):
        token = frames.seal_at(bytes(length), NOW + number, IV)
        for at in [at for at, digit in enumerate(token) if digit == ord("_")]:
            for byte in b"/*\xff\x00":
                spoiled = token[:at] + bytes([byte]) + token[at + 1 :]
                found = outcome(frames.open_at, spoiled, None, NOW)
                assert found is UnreadableMessage


@given(st.one_of(st.binary(max_size=200), st.lists(digits).map(bytes)))
@example(b"")
@example(b"====")
@example(valid[:-1])
@example(valid + b"\n")
@example(valid + b"AAAA")
@example(b"gAAA" + valid[4:])
def test_any_bytes(token) -> None:
    expected = outcome(oracle.open_at, token, 60, NOW)
    assert outcome(frames.open_at, token, 60, NOW) == expected


def signed(raw: bytes) -> bytes:
    """A token of ours whose content is nonsense."""
    mac = reference.hmac.digest(oracle.keys[0][:16], raw, "sha256")
    return base64.urlsafe_b64encode(raw + mac)


@given(st.binary(max_size=80))
@example(b"\x80" + bytes(8) + IV)  # no block
@example(b"\x80" + bytes(8) + IV + bytes(16))  # wrong padding
@example(b"\x80" + bytes(8) + IV + bytes(17))
@example(b"\x81" + bytes(8) + IV + bytes(16))
def test_nonsense_that_is_signed(raw) -> None:
    expected = outcome(oracle.open_at, signed(raw), None, NOW)
    assert outcome(frames.open_at, signed(raw), None, NOW) == expected


def test_no_block_that_is_signed() -> None:
    for number in range(3000):
        for raw in (bytes(8), number.to_bytes(24, "big")):
            found = outcome(frames.open_at, signed(b"\x80" + raw), None, NOW)
            assert found is UnreadableMessage


def test_another_version_that_is_signed() -> None:
    raw = base64.urlsafe_b64decode(valid)[:-32]
    assert frames.open_at(signed(raw), 60, NOW) == b"a payload of some length"
    with pytest.raises(UnreadableMessage, match="version"):
        frames.open_at(signed(b"\x81" + raw[1:]), 60, NOW)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 17), st.integers(0, 40))
@example(bytes(32), 16, 40)
@example(bytes(32), 17, 40)
@example(bytes(32), 16, 16)
@example(bytes(32), 2, 30)
def test_padding_that_is_signed(blocks, padding, spoiled) -> None:
    blocks = bytearray(blocks[: 32 - padding] + bytes([padding]) * padding)
    blocks[-1] = padding
    if spoiled < 31:
        blocks[spoiled] ^= 1
    cipher = reference.Cipher(
        reference.algorithms.AES(oracle.keys[0][16:]), reference.modes.CBC(IV)
    )
    encrypted = cipher.encryptor().update(bytes(blocks))
    token = signed(b"\x80" + bytes(8) + IV + encrypted)
    expected = outcome(oracle.open_at, token, None, NOW)
    assert outcome(frames.open_at, token, None, NOW) == expected


def test_threads_share_no_context() -> None:
    failures = []

    def work(number: int) -> None:
        payload = bytes([number]) * (number * 50)
        for _ in range(200):
            if fernet.decrypt(frames.seal(payload)) != payload:
                failures.append(number)
            if frames.open(fernet.encrypt(payload)) != payload:
                failures.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_large_payloads() -> None:
    payload = os.urandom(1 << 20)
    assert fernet.decrypt(frames.seal(payload)) == payload
    assert frames.open(fernet.encrypt(payload)) == payload


# --- What is refused


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("secret", "a list of keys, not one key"),
        (b"secret", "a list of keys, not one key"),
        (None, "a list of keys, not NoneType"),
        (7, "a list of keys, not int"),
        ([], "is empty"),
        (["fine", ""], r"symmetric_encryption_keys\[1\] is empty"),
        ([b""], r"\[0\] is empty"),
        (["secret", 5], r"\[1\] must be str or bytes, not int"),
        ([["secret"]], r"\[0\] must be str or bytes, not list"),
        (["secret\ud800"], "can't be encoded"),
    ],
)
def test_keys_refused(keys, words) -> None:
    with pytest.raises(InvalidSetting, match=words) as caught:
        FernetFrames(keys)
    error: BaseException | None = caught.value
    while error:
        assert "secret" not in repr(error) + repr(vars(error))
        error = None if error.__suppress_context__ else error.__context__


def test_without_cryptography(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(InvalidSetting, match=r"channels_redis_fast\[cryptography\]"):
        FernetFrames(KEYS)
    assert _framing.UniqueBytes(12).next()


@pytest.mark.parametrize("made", [frames, UniqueBytes(12)])
def test_secrets_and_counters_are_not_copied(made) -> None:
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copying(made)


@pytest.mark.parametrize("wrong", [None, "text", bytearray(b"bytes")])
def test_takes_bytes(wrong) -> None:
    for method in (frames.seal, frames.open, frames.encrypt, frames.decrypt):
        with pytest.raises(TypeError):
            method(wrong)
