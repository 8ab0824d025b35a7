"""What Redis is told for each method, and what its answers mean."""

from __future__ import annotations

import logging

import pytest
from channels.exceptions import ChannelFull
from redis import exceptions as errors

from channels_redis_fast.commands.operations import Operations
from channels_redis_fast.commands.scripts import SEND, SEND_MANY, key_of
from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.wire._hashing import shard_of

MINE, OTHER = "specific.0a!", "specific.0b!"


@pytest.fixture
def operations() -> Operations:
    """Those of a layer on three hosts, which it never connects to."""
    hosts = [("localhost", port) for port in (1, 2, 3)]
    rules = {"small*": 3, f"{MINE}*": 7}
    return RedisChannelLayer(hosts=hosts, channel_capacity=rules)._operations


def test_a_process_has_one_shard(operations: Operations) -> None:
    index, command = operations.send(f"{MINE}x", MINE, {"n": 1})
    assert index == shard_of(MINE, 3)
    sha, key, _, capacity, expiry = command[1], *command[3:]
    assert (sha, key) == (SEND.sha, b"asgi" + MINE.encode())
    assert (capacity, expiry) == (b"7", b"60")


def test_a_normal_channel_has_all_in_turn(operations: Operations) -> None:
    found = [operations.send("small.jobs", "small.jobs", {}) for _ in range(6)]
    assert [index for index, _ in found] == [0, 1, 2, 0, 1, 2]
    assert {command[5] for _, command in found} == {b"3"}


def test_several_for_one_key(operations: Operations) -> None:
    sealed = [operations.seal(f"{MINE}{n}", MINE, {"n": n}) for n in range(3)]
    index, command = operations.store(sealed)
    assert index == shard_of(MINE, 3)
    assert command[1] == SEND_MANY.sha
    assert key_of(command) == b"asgi" + MINE.encode()
    assert command[5::2] == tuple(b"7" for _ in sealed)
    assert command[6::2] == tuple(one.member for one in sealed)


def test_a_group_has_one_command_for_each_process(operations: Operations) -> None:
    members = [f"{MINE}{n}".encode() for n in range(3)]
    members += [f"{OTHER}x".encode(), b"jobs", b"no text \xff", b""]
    body = operations.codec.body({"n": 1})
    sealed = operations.seal_all(members, body)
    keys = [one.key.removeprefix(b"asgi").decode() for one in sealed]
    assert {MINE, OTHER, "jobs"} <= {*keys}
    assert len(keys) == len({*keys})
    for one, name in zip(sealed, keys, strict=True):
        assert one.shard == shard_of(name, 3)


def test_only_zero_is_full(operations: Operations) -> None:
    for reply in 1, None:
        operations.sent("jobs", reply)
    with pytest.raises(ChannelFull, match="jobs"):
        operations.sent("jobs", 0)


def test_what_of_a_group_is_raised(
    operations: Operations, caplog: pytest.LogCaptureFixture
) -> None:
    """Full ones are told in the log, and errors raised: nobody knows who got it."""
    caplog.set_level(logging.INFO)
    operations.delivered("room", 3, [1, 1, 1])
    assert not caplog.records
    operations.delivered("room", 3, [1, 0, 1])
    assert len(caplog.records) == 1
    assert "room" in caplog.text
    with pytest.raises(errors.ConnectionError, match="lost"):
        operations.delivered("room", 3, [1, errors.ConnectionError("lost"), 1])


def test_the_pattern_of_all_keys() -> None:
    """What of a prefix would be a glob is none."""
    layer = RedisChannelLayer(prefix="a[b]*?")
    assert layer._operations.flush_pattern() == rb"a\[b\]\*\?*"


def test_members_are_read_as_they_are_for_a_while(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are too old are removed first, and again when a second is over."""
    now = 1000.0
    monkeypatch.setattr(
        "channels_redis_fast.commands.operations.monotonic", lambda: now
    )

    def read() -> bytes:
        request = index, command = operations.members("room")
        assert index == shard_of("room", 3)
        assert key_of(command) == b"asgi:group:room"
        operations.note_members(request, [])
        return command[0]

    operations.members("room")  # and no answer: nothing was removed
    assert read() == b"EVALSHA"
    assert read() == b"ZRANGE"
    assert operations.members("another")[1][0] == b"EVALSHA"
    now += 0.99
    assert read() == b"ZRANGE"
    now += 0.02
    assert read() == b"EVALSHA"
    assert read() == b"ZRANGE"


@pytest.mark.parametrize(("group_expiry", "seconds"), [(2, 0.2), (86400, 1.0)])
def test_short_memberships_are_looked_at_more_often(
    group_expiry: float, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(
        "channels_redis_fast.commands.operations.monotonic", lambda: now
    )
    layer = RedisChannelLayer(group_expiry=group_expiry)
    layer._operations.note_members(layer._operations.members("room"), [])
    now += seconds * 0.99
    assert layer._operations.members("room")[1][0] == b"ZRANGE"
    now += seconds * 0.02
    assert layer._operations.members("room")[1][0] == b"EVALSHA"
