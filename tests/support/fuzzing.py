"""Any bytes from Redis: what the compiled readers make of them, against the reference.

Each check takes bytes and fails unless both give the same message or both refuse them
with one of our errors. `make fuzz` has libFuzzer look for bytes that reach more of the
compiled code (bench/fuzz.py); test_fuzzing.py keeps those that once found something.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable

from channels_redis_fast.wire import _aead, _envelope, _fanout, _framing
from support import reference
from support import reference_messages as oracle
from support.golden import MESSAGES as GOLDEN
from support.message_strategies import CHANNEL, KEY, outcome

PREFIX = len(bytes.fromhex(GOLDEN["prefix"]))
NOW = GOLDEN["now"]
KEYS = GOLDEN["keys"]
CONTEXT = b"asgispecific.0123456789abcdef!"
LIFETIMES = (None, 0, 60, 0.5, 2**40)

fernet = _framing.FernetFrames(KEYS)
fernet_oracle = oracle.FernetFrames(KEYS)
gcm = _aead.AesGcmFrames(KEYS)
gcm_oracle = oracle.AesGcmFrames(KEYS)


def same(compiled: Callable, expected: Callable, *args: object) -> None:
    found, wanted = outcome(compiled, *args), outcome(expected, *args)
    if found != wanted:
        raise AssertionError(f"{args}: {found}, not {wanted}")


def check_unpack(data: bytes) -> None:
    """The bytes, read from behind as many of them as the first one says."""
    start = data[0] % 16 if data else 0
    same(_envelope.unpack, oracle.unpack, data[1:], start)


def check_fernet(data: bytes) -> None:
    """The bytes as a token, as what is in one, as what a key of ours has signed."""
    how, content = data[0] if data else 0, data[1:]
    if how & 3 == 1:
        content = base64.urlsafe_b64encode(content)
    elif how & 3 == 2:
        key = fernet_oracle.keys[how >> 2 & 1]
        mac = hmac.digest(key[:16], content, "sha256")
        content = base64.urlsafe_b64encode(content + mac)
    elif how & 3 == 3:
        now, iv = int.from_bytes(content[:8], "big"), content[8:24].ljust(16)
        same(fernet.seal_at, fernet_oracle.seal_at, content[24:], now, iv)
        content = fernet.seal_at(content[24:], now, iv)
    lifetime = LIFETIMES[(how >> 3) % len(LIFETIMES)]
    same(fernet.open_at, fernet_oracle.open_at, content, lifetime, NOW)


def check_aes_gcm(data: bytes) -> None:
    """The bytes as a frame, behind a head of ours, as what a key of ours has sealed."""
    how, content = data[0] if data else 0, data[1:]
    if how & 3 == 1:
        content = b"\xc1\x01" + gcm_oracle._id(gcm_oracle.keys[how >> 2 & 1]) + content
    elif how & 3 >= 2:
        salt, now = content[:2].ljust(16), int.from_bytes(content[2:7], "big")
        spoiled, content = content[7:9], content[9:]
        content = gcm_oracle.seal_at(content, CONTEXT, now, salt, len(content))
        if how & 3 == 3 and len(spoiled) == 2:
            at = spoiled[0] % len(content)
            changed = bytes([content[at] ^ spoiled[1]])
            content = content[:at] + changed + content[at + 1 :]
    lifetime = LIFETIMES[(how >> 3) % len(LIFETIMES)]
    same(gcm.open_at, gcm_oracle.open_at, content, CONTEXT, lifetime, NOW)


def check_bundle(data: bytes) -> None:
    """The bytes, split at newlines, as the members of a group."""
    members = data.split(b"\n")
    found, wanted = _fanout.bundle(members), reference.bundle(members)
    if list(found.items()) != list(wanted.items()):
        raise AssertionError(f"{members}: {found}, not {wanted}")


CHECKS = {
    "unpack": check_unpack,
    "fernet": check_fernet,
    "aes_gcm": check_aes_gcm,
    "bundle": check_bundle,
}


def seeds(name: str) -> list[bytes]:
    """The golden messages, in the form that the check of this name takes."""
    rows = GOLDEN["rows"].values()
    plain = [bytes.fromhex(row["plain"])[PREFIX:] for row in rows]
    tokens = [row["token"].encode() for row in rows if "token" in row]
    if name == "unpack":
        return [b"\0" + each for each in plain]
    if name == "bundle":
        return [b"\n".join([each[:50], each[:50], b"", each[9:]]) for each in plain]
    if name == "aes_gcm":
        made = NOW.to_bytes(5, "big")
        frames = [
            gcm_oracle.seal_at(each, CONTEXT, NOW, bytes(16), 1) for each in plain
        ]
        return [b"\0" + frame for frame in frames] + [
            bytes([how]) + b"ab" + made + b"\x20\x01" + each
            for each in plain[:4]
            for how in (2, 3, 18, 19)
        ]
    raw = [base64.urlsafe_b64decode(token) for token in tokens]
    return [
        *(b"\0" + token for token in tokens),
        *(b"\x01" + each for each in raw),
        *(b"\x12" + each[:-32] for each in raw),
        *(b"\x13" + each[1:25] + each[25:60] for each in raw),
    ]


# What the fuzzer would hardly ever come upon by changing single bytes.
WORDS = (
    *(KEY, b"\xd9\x10" + CHANNEL.encode(), b"\xde\x00\x10", b"\xdf\0\0\0\x01"),
    *(b"\xdd\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff"),
    *(b"\xdc\x00\x02", b"\xda\x00\x02", b"\xd6\xff", b"\xd7\xff", b"\xc7\x0c\xff"),
    *(b"\xc1\x01", b"gAAAAA", b"==", b"!", b"\n", b"specific."),
)
