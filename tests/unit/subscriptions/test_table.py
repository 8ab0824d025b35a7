"""Which channels want which names, and whose the names are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from channels_redis_fast.subscriptions.owners import tell_forget
from channels_redis_fast.subscriptions.table import SubscriptionTable

NAME, ROOM = b"channel", b"asgi__group__room"
Left = list[tuple[bytes, str]]


class Loop(asyncio.AbstractEventLoop):
    """One that stands still or doesn't, and keeps what it is to call."""

    def __init__(self) -> None:
        self.runs = True
        self.calls: list[Any] = []

    def is_running(self) -> bool:
        return self.runs

    def call_soon_threadsafe(self, callback: Any, *args: Any, **_: Any) -> Any:
        self.calls.append((callback.__name__, *args))


class Owner:
    """One that does nothing."""

    def __init__(self) -> None:
        self.loop: Any = Loop()
        self.is_open = True
        self.taken: set[bytes] = set()

    async def subscribe(self, name: bytes) -> None:
        """Nobody confirms it."""

    def settle(self, names: list[bytes]) -> None:
        """Nothing is subscribed."""

    def forget(self, name: bytes) -> None:
        """Nothing was."""

    def catch_up(self) -> None:
        """Nothing came."""


class Table(SubscriptionTable):
    """One that a join can be told to at once."""

    def enter(self, name: bytes, channel: str, here: Owner, beside: bytes = b"") -> Any:
        """The owner of a name that a channel joined."""
        join = object()
        _, owner = self.join(name, channel, join, beside, here)
        assert self.settle(name, channel, join, stays=True) is None
        return owner


@pytest.fixture
def left() -> Left:
    return []


@pytest.fixture
def table(left: Left) -> Iterator[Table]:
    """One in which nothing stays of what all left."""
    table = Table(lambda *which: left.append(which))
    yield table
    for name in table.names():
        for channel in table.members(name):
            assert name in table.names_of(channel)
            table.leave(name, channel)
    kept = [value for value in vars(table).values() if isinstance(value, dict)]
    assert kept == [{}, {}, {}, {}]


def test_channels_get_what_their_owner_hears(table: Table) -> None:
    owner, other = Owner(), Owner()
    for channel in "a", "b":
        assert table.enter(ROOM, channel, owner) is owner
    assert table.channels(ROOM, owner) == ("a", "b")
    assert table.channels(ROOM, other) == ()
    assert table.channels(NAME, owner) == ()
    assert table.is_owner(ROOM, owner)
    assert not table.is_owner(ROOM, other)
    table.enter(ROOM, "c", other)  # where it is heard already
    assert table.channels(ROOM, owner) == ("a", "b", "c")


def test_the_last_one_to_leave_ends_it(table: Table, left: Left) -> None:
    owner = Owner()
    table.enter(ROOM, "a", owner)
    table.enter(ROOM, "b", owner)
    assert table.leave(ROOM, "a") is None
    assert table.leave(ROOM, "a") is None
    assert table.leave(NAME, "b") is None
    assert table.leave(ROOM, "b") is owner
    assert left == [(ROOM, "a"), (ROOM, "b")]
    assert len(table) == 0


def test_a_join_that_fails_leaves_nothing(table: Table, left: Left) -> None:
    owner = Owner()
    table.join(ROOM, "a", "a join", b"", owner)
    assert table.members(ROOM) == ["a"]
    assert table.settle(ROOM, "a", "a join", stays=False) is owner
    assert table.names() == []
    assert left == [(ROOM, "a")]


@pytest.mark.parametrize("stays", [True, False])
def test_a_join_that_fails_undoes_no_other(table: Table, stays: bool) -> None:
    """Neither one that goes on, nor a membership that is there."""
    owner = Owner()
    table.join(ROOM, "a", "first", b"", owner)
    table.join(ROOM, "a", "second", b"", owner)
    assert table.settle(ROOM, "a", "first", stays=stays) is None
    assert table.members(ROOM) == ["a"]
    gone = table.settle(ROOM, "a", "second", stays=False)
    assert (gone is owner) == (not stays)
    assert table.members(ROOM) == ["a"] * stays


def test_a_join_ends_nothing_that_came_after_it(table: Table) -> None:
    owner = Owner()
    table.join(ROOM, "a", "early", b"", owner)
    table.leave(ROOM, "a")
    table.join(ROOM, "a", "late", b"", owner)
    assert table.settle(ROOM, "a", "early", stays=False) is None
    assert table.members(ROOM) == ["a"]


def test_a_group_is_heard_where_its_channel_is(table: Table) -> None:
    owner, here = Owner(), Owner()
    table.enter(NAME, "channel", owner)
    assert table.loop_of("channel") is owner.loop
    assert table.listening() == ["channel"]
    assert table.enter(ROOM, "channel", here, beside=NAME) is owner
    owner.loop.runs = False
    assert table.loop_of("channel") is None
    assert table.enter(b"another", "channel", here, beside=NAME) is here


def test_its_own_name_is_no_membership(table: Table) -> None:
    owner = Owner()
    for name in NAME, ROOM:
        table.enter(name, "channel", owner)
    assert table.memberships == 1
    table.leave(NAME, "channel")
    assert table.memberships == 1
    table.leave(ROOM, "channel")
    assert table.memberships == 0


def test_names_that_nobody_listens_to(table: Table) -> None:
    stands, ended, runs = Owner(), Owner(), Owner()
    table.enter(b"of one that stands still", "a", stands)
    table.enter(b"of one that ended", "b", ended)
    table.enter(b"of one that runs", "c", runs)
    assert not table.has_orphans()
    stands.loop.runs = ended.is_open = False
    assert table.has_orphans()
    here = Owner()
    assert {*table.claim(here)} == {
        (stands, b"of one that stands still"),
        (ended, b"of one that ended"),
    }
    assert not table.has_orphans()
    assert table.channels(b"of one that ended", here) == ("b",)
    assert table.claim(here, [b"of one that runs", b"unknown"]) == [
        (runs, b"of one that runs")
    ]
    assert table.claim(here) == []


def test_one_that_stands_still_is_told_once(table: Table) -> None:
    """Calls would pile up in its loop: names do, until it has caught up."""
    owner, here = Owner(), Owner()
    for name in NAME, ROOM:
        table.enter(name, "channel", owner)
    owner.loop.runs = False
    for former, name in table.claim(here):
        tell_forget(former, name)
    assert owner.taken == {NAME, ROOM}
    assert owner.loop.calls == [("catch_up",)]
    assert table.is_taken(NAME, owner)
    table.leave(NAME, "channel")
    assert not table.is_taken(NAME, owner)  # nobody misses what comes
    owner.loop.runs = True
    tell_forget(owner, b"another")
    assert owner.loop.calls[1:] == [("forget", b"another")]
