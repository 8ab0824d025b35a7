"""What a million calls of compiled functions leave behind in an interpreter.

`memory.py MODULE` makes the calls and writes down what grew, as JSON.
"""

from __future__ import annotations

import gc
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice, repeat, starmap
from typing import NamedTuple

import psutil

from channels_redis_fast.wire import (
    _aead,
    _capacity,
    _envelope,
    _fanout,
    _framing,
    _hashing,
    _names,
)

NAME = "specific.0123456789abcdef0123456789abcdef!" + "f" * 32
LONG = "x" * 3000
KEYS = ["a key", b"another"]
CONTEXT = b"asgi" + NAME.encode()
NOW = 1_700_000_000
MANY = 1_000_000
SOME = 100_000  # of errors, whose texts take their time
FEW = 10_000  # of objects that set up ciphers or compile regexes


class Case(NamedTuple):
    function: Callable
    args: tuple
    times: int = MANY
    error: type[Exception] | None = None  # that each call raises


class Growth(NamedTuple):
    case: str
    blocks: int  # of Python's own allocator: objects and what they hold, to 512 bytes
    resident: int  # bytes: all the rest
    references: int  # to an argument or to None


def errors(function: Callable, *args: tuple) -> Iterator[Case]:
    """A case for each tuple of arguments that the function refuses."""
    for each in args:
        try:
            function(*each)
        except Exception as error:
            yield Case(function, each, SOME, type(error))
        else:
            raise AssertionError(f"{function}{each} raised nothing")


def names() -> Iterator[Case]:
    bad = [("",), ("ä",), ("a b",), (LONG,), (5,)]
    for function in (_names.non_local_name, _names.check_group):
        yield from errors(function, *bad)
    yield from errors(_names.non_local_name, ("!",), ("a!b c",), ("a!b!c",))
    yield from errors(_names.split_local, (5,), (b"x",))
    yield Case(_names.check_group, ("chat",))
    for function in (_names.non_local_name, _names.split_local):
        for name in (NAME, "worker"):
            yield Case(function, (name,), MANY // 2)


def hashing() -> Iterator[Case]:
    yield from errors(_hashing.shard_of, (5, 2), ("\ud800", 2), (NAME, 0), (NAME, ""))
    # Kept UTF-8 belongs to the str: a new one each time would hide it.
    yield Case(_hashing.shard_of, (NAME, 7), MANY // 2)
    yield Case(_hashing.shard_of, (LONG.encode(), 7), MANY // 10)
    yield Case(lambda: _hashing.shard_of("ä" + NAME, 7), (), MANY // 2)


def capacity() -> Iterator[Case]:
    rules = [("http.request", 200), ("http.response!*", 10)]
    rules += [(re.compile(r"^websocket.send\!.+"), 20), ("[ab]*", 2)]
    table = _capacity.CapacityTable(100, rules)
    yield Case(_capacity.CapacityTable, (100, rules), FEW)
    yield Case(table.lookup, (NAME,))
    yield Case(table.lookup, ("websocket.send!x",))
    yield Case(table.lookup, ("http.response!x",), SOME)
    # More names than are remembered.
    numbers = iter(range(10 * MANY))
    yield Case(lambda: table.lookup(f"a{next(numbers) % 3000}"), (), MANY // 2)
    yield from errors(table.lookup, (5,), (None,))
    bad = [("x", []), (1, [(5, 1)]), (1, [("x", -1)]), (1, 5), (1, [(1, 2, 3)])]
    bad += [(1, [(re.compile(b"x"), 1)]), (-1, rules)]
    yield from errors(_capacity.CapacityTable, *bad)

    class Moody:
        def match(self, name: str) -> bool:
            raise LookupError(name)

    yield from errors(_capacity.CapacityTable(1, [(Moody(), 1)]).lookup, ("name",))


def fanout() -> Iterator[Case]:
    members = [f"specific.{n % 300:032x}!{n}".encode() for n in range(1000)]
    yield Case(_fanout.bundle, (members[:3],))
    yield Case(_fanout.bundle, (members,), MANY // 1000)
    yield Case(_fanout.bundle, ([b"", b"plain", b"a!b!c", LONG.encode()],), MANY // 10)
    yield from errors(_fanout.bundle, ([*members[:3], "str"],), (None,), ([None],))


def envelope() -> Iterator[Case]:
    flat = {"type": "chat.message", "text": "Grüße", "n": 1, "f": 0.5, "b": b"x"}
    deep = {"type": "x", "inner": [{"a": [1, LONG]}], "none": None}
    body = _envelope.pack(flat)
    for message in (flat, deep):
        yield Case(_envelope.pack, (message,), MANY // 2)
        for whole in (
            _envelope.pack(message),
            _envelope.splice(b"", _envelope.pack(message), NAME),
            _envelope.splice_list(b"", _envelope.pack(message), [NAME.encode()] * 3),
        ):
            yield Case(_envelope.unpack, (whole,), MANY // 6)
    yield Case(_envelope.splice, (b"head", body, NAME), MANY // 2)
    yield Case(_envelope.splice, (b"head", body, LONG), MANY // 2)
    yield Case(_envelope.splice_list, (b"head", body, [NAME.encode()] * 3))
    yield from errors(
        _envelope.pack,
        *[(None,), ({"__asgi_channel__": 1},), ({"a": 1, "bad": {1}},)],
        ({"a": "\ud800"},),
    )
    yield from errors(
        _envelope.splice,
        *[(b"", b"", "x"), (b"", b"\x80", 5), (b"", b"\x80", "\ud800"), ("", b"", "")],
    )
    yield from errors(
        _envelope.splice_list,
        *[(b"", b"\x80", [5]), (b"", b"\x90", [b"x"]), (b"", b"\x80", None)],
    )
    key = b"\xb0__asgi_channel__"
    yield from errors(
        _envelope.unpack,
        *[(b"",), (b"\x80", 2), (b"\xc1",), (b"\x81\xa1a",), (b"\x81\x01\x01",)],
        *[(b"\x81" + key + tail,) for tail in (b"\x01", b"\x91\xa1\xff", b"\x92\xa1a")],
        *[(b"\x81\xa1a\xa1\xff",), (b"\x81\xa1a\xd4\xff\x00",), (b"\x81" + key, 0)],
        *[(b"\x82" + key + b"\xa1a" + key + b"\x01",), ("str",)],
    )


def framing() -> Iterator[Case]:
    frames = _framing.FernetFrames(KEYS)
    payload, iv = LONG.encode()[:300], bytes(16)
    for length, times in ((12, MANY), (16, SOME), (6, MANY // 2), (600, SOME)):
        unique = _framing.UniqueBytes(length)
        yield Case(unique.next, (), times)
    yield Case(unique.reseed, ())
    yield Case(_framing.UniqueBytes, (12,))
    yield Case(frames.seal, (payload,), MANY // 2)
    yield Case(frames.encrypt, (payload,), MANY // 2)
    yield Case(frames.seal_at, (payload, NOW, iv), SOME)
    old = _framing.FernetFrames(KEYS[1:]).seal(payload)
    for token in (frames.seal(payload), old):
        yield Case(frames.open, (token, 10**9), MANY // 4)
        yield Case(frames.decrypt, (token,), MANY // 4)
    yield Case(_framing.FernetFrames, (KEYS,), FEW)
    yield from errors(_framing.UniqueBytes, (-1,), ("12",))
    yield from errors(_framing.FernetFrames, ("one key",), ([],), ([5],))
    yield from errors(frames.seal, (None,), ("str",))
    yield from errors(frames.seal_at, (payload, NOW, b"short"), (payload, -1, iv))
    late = frames.seal_at(payload, NOW, iv)
    spoiled = [late[:40] + b"A" + late[41:], late[:-1] + b"*", late[:-4], b""]
    yield from errors(frames.open, *[(each,) for each in spoiled], (late, 1), (None,))
    yield from errors(frames.open_at, (late, 5, 0), (late, "x", NOW))


def aead() -> Iterator[Case]:
    frames, old = _aead.AesGcmFrames(KEYS), _aead.AesGcmFrames(KEYS[1:])
    payload = LONG.encode()[:300]
    frame = frames.seal_at(payload, CONTEXT, NOW)
    yield Case(frames.seal, (payload, CONTEXT))
    yield Case(frames.seal_at, (payload, CONTEXT, NOW), SOME)
    yield Case(frames.open, (frame, CONTEXT))
    yield Case(frames.open_at, (old.seal(b"", CONTEXT), CONTEXT, None, 0), SOME)
    yield Case(frames.looks_like, (frame,))
    yield Case(frames.reseed, (), FEW)
    yield Case(_aead.AesGcmFrames, (KEYS,), FEW)

    def from_elsewhere() -> bytes:  # more senders than are remembered
        old.reseed()
        return frames.open(old.seal(b"", CONTEXT), CONTEXT)

    yield Case(from_elsewhere, (), FEW)
    yield from errors(_aead.AesGcmFrames, ("one key",), ([],), ([5],))
    spoiled = [frame[:-1] + b"\0", b"", b"\xc1\2" + frame[2:], frame[:49], b"x" * 99]
    spoiled += [frame[:2] + bytes(4) + frame[6:], frame[:6] + bytes(16) + frame[22:]]
    yield from errors(
        frames.open,
        *[(each, CONTEXT) for each in spoiled],
        *[(frame, b"other"), (frame, CONTEXT, 1), (frame, None), (None, CONTEXT)],
    )
    yield from errors(frames.seal, (None, CONTEXT), (payload, "str"))


MODULES = {
    function.__name__: function
    for function in (names, hashing, capacity, fanout, envelope, framing, aead)
}


def call(case: Case, times: int) -> None:
    if case.error is None:
        deque(starmap(case.function, repeat(case.args, times)), maxlen=0)
        return
    for _ in range(times):
        try:
            case.function(*case.args)
        except case.error:
            pass
        else:
            raise AssertionError(f"{case} raised nothing")


def growth(case: Case) -> Growth:
    """What grew from after a tenth of the calls, when all that is kept is there."""
    process, held = psutil.Process(), [None, *islice(case.args, 9)]
    call(case, max(case.times // 10, 4000))
    gc.collect()
    counts = list(map(sys.getrefcount, held))
    resident, blocks = process.memory_info().rss, sys.getallocatedblocks()
    call(case, case.times)
    gc.collect()
    blocks = sys.getallocatedblocks() - blocks
    resident = process.memory_info().rss - resident
    more = [
        now - then for now, then in zip(map(sys.getrefcount, held), counts, strict=True)
    ]
    return Growth(repr(case)[:300], blocks, resident, max(more))


if __name__ == "__main__":
    found = [growth(case) for case in MODULES[sys.argv[1]]()]
    json.dump([each._asdict() for each in found], sys.stdout)
