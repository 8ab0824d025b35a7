"""Many threads at once call each compiled function, and all get the right results.

Not in a traced build: its tracer lets threads switch between lines of C, where the GIL
keeps them apart otherwise.
"""

from __future__ import annotations

import re
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from channels_redis_fast.exceptions import UnreadableMessage
from channels_redis_fast.mailboxes.dropped import DropCounters
from channels_redis_fast.mailboxes.registry import LocalChannels
from channels_redis_fast.wire import _fanout, _hashing, _names
from channels_redis_fast.wire._aead import AesGcmFrames
from channels_redis_fast.wire._capacity import CapacityTable
from channels_redis_fast.wire._envelope import pack, splice, splice_list, unpack
from channels_redis_fast.wire._framing import FernetFrames, UniqueBytes
from support import reference, reference_messages

KEYS = ["the first", b"the second"]
CONTEXT = b"asgispecific.0123456789abcdef!"
THREADS = 6


@contextmanager
def quick_switches() -> Iterator[None]:
    """Threads take turns after microseconds, not milliseconds."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def hammer(work: Callable[[int, int], None], times: int = 1500) -> None:
    """Call work(thread, round) in several threads, which begin at once."""
    start = threading.Barrier(THREADS)
    failures: list[BaseException] = []

    def run(thread: int) -> None:
        start.wait()
        try:
            for number in range(times):
                work(thread, number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(THREADS)]
    with quick_switches():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def test_hammer_reports_a_failure() -> None:
    with pytest.raises(ZeroDivisionError):
        hammer(lambda thread, number: 1 // number)


def test_names_and_shards() -> None:
    def work(thread: int, number: int) -> None:
        name = f"specific.{thread}!{number}"
        assert _names.non_local_name(name) == _names.split_local(name)
        assert _hashing.shard_of(name, 7) == reference.shard_of(name, 7)
        with pytest.raises(TypeError):
            _names.check_group(name)

    hammer(work)


def test_bundle() -> None:
    members = [f"specific.{n % 300}!{n}".encode() for n in range(600)]
    expected = reference.bundle(members)

    def work(thread: int, number: int) -> None:
        assert _fanout.bundle(members) == expected

    hammer(work, times=60)


def test_bundle_of_a_list_that_changes() -> None:
    members: list[bytes] = []

    def work(thread: int, number: int) -> None:
        if thread % 2:
            members[:] = [f"{thread}.{n}!x".encode() for n in range(number % 20)]
        else:
            for key, names in _fanout.bundle(members).items():
                assert all(name.startswith(key) for name in names)

    hammer(work)


def test_capacity_by_regexes() -> None:
    rules = [("exact", 7), (re.compile(r"\w+-1$"), 1), (re.compile(r"\w+-2$"), 2)]
    table = CapacityTable(9, rules)

    def work(thread: int, number: int) -> None:
        # The memo fills up and is cleared all the time: 1,500 rounds, 6 names each.
        kind = number % 4
        expected = {1: 1, 2: 2}.get(kind, 9)
        assert table.lookup(f"name{thread}x{number}-{kind}") == expected
        assert table.lookup("exact") == 7

    hammer(work)


@pytest.mark.parametrize("length", [6, 12, 14])
def test_unique_bytes_while_they_are_drawn_again(length: int) -> None:
    unique = UniqueBytes(length)
    made: list[bytes] = []

    def work(thread: int, number: int) -> None:
        if thread == 0 and number % 10 == 5:
            unique.reseed()
        made.append(unique.next())

    hammer(work)
    assert len(made) == THREADS * 1500
    assert {len(each) for each in made} == {length}
    # 6 random bytes alone: 9,000 of them are all different but once in 7 million times.
    assert len(set(made)) == len(made)


def test_envelopes() -> None:
    def work(thread: int, number: int) -> None:
        message = {"thread": thread, "text": "x" * (number % 300), "list": [number]}
        body = pack(message)
        assert body == reference_messages.pack(message)
        names = [f"a{thread}!{number}"] * (number % 20)
        encoded = [name.encode() for name in names]
        whole = splice_list(b"head", body, encoded)
        assert unpack(whole, 4) == (names, message, False)
        assert unpack(splice(b"", body, "name")) == (["name"], message, False)
        with pytest.raises(UnreadableMessage):
            unpack(whole[:-1] + b"\xc1")

    hammer(work, times=500)


def test_a_list_of_channels_that_changes() -> None:
    channels: list[bytes] = []
    body = pack({})

    def work(thread: int, number: int) -> None:
        if thread % 2:
            channels[:] = [b"x" * (number % 40)] * (number % 30)
        else:
            found, message, flat = unpack(splice_list(b"", body, channels))
            assert (message, flat) == ({}, True)
            assert len({*found}) <= 1

    hammer(work)


def test_fernet_tokens_good_and_bad() -> None:
    frames, old = FernetFrames(KEYS), FernetFrames(KEYS[1:])
    oracle = reference_messages.FernetFrames(KEYS)

    def work(thread: int, number: int) -> None:
        payload = bytes([thread]) * (number % 70)
        now = int(time.time())
        token = (old if number % 3 == 0 else frames).seal(payload)
        assert frames.open(token, 60) == payload
        assert oracle.open_at(token, 60, now) == payload
        with pytest.raises(UnreadableMessage):
            frames.open(token[:-5] + b"AAAA=", 60)
        # The context of one that failed after it was decrypted goes on, too.
        with pytest.raises(UnreadableMessage):
            frames.open_at(token, 5, now + 100)

    hammer(work, times=200)


def test_aes_gcm_frames_of_more_senders_than_are_remembered() -> None:
    reader, shared = AesGcmFrames(KEYS), AesGcmFrames(KEYS[1:])

    def work(thread: int, number: int) -> None:
        payload = bytes([thread]) * (number % 70)
        if number % 5 == 0:
            shared.reseed()
        frame = shared.seal(payload, CONTEXT)
        assert reader.open(frame, CONTEXT, 60) == payload
        with pytest.raises(UnreadableMessage):
            reader.open(frame, b"another", 60)

    hammer(work, times=1000)


def test_room_while_others_fill_and_empty() -> None:
    boxes = LocalChannels(
        expiry=60.0,
        capacity_of=lambda name: 10,
        inbox_of=lambda name: "specific!",
        counters=DropCounters(),
        on_wait=None,
        on_end=lambda name: None,
    )
    names = [boxes.new(f"specific!{n}") for n in range(100)]
    (inbox,) = boxes.owners.inboxes()

    def work(thread: int, number: int) -> None:
        if thread == 0:
            assert boxes.owners.room(inbox, None) > 0
        elif number % 2:
            boxes.put(inbox, names, {}, None)
        else:
            boxes.clear()

    hammer(work, 300)


def test_no_module_asks_for_the_gil() -> None:
    """On a free-threaded Python an import may turn the GIL on."""
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert enabled == (not sysconfig.get_config_var("Py_GIL_DISABLED"))
