"""What is concluded of other processes from the answers to heartbeats."""

from __future__ import annotations

import pytest

from channels_redis_fast.commands.census import Answer, Census, without

KEY = b"asgi:group:room"
MEMBERS = [b"specific.a!1", b"specific.b!1", b"x.a!2", b"normal", b"specific.c!1"]


def answer(judged: float, silent: dict[bytes, float] | None, about: bytes) -> Answer:
    return Answer(True, False, judged, 0, about, silent, [], 3)


@pytest.fixture
def census() -> Census:
    """One told at 100 that `a` and `b` are silent, `a` for longer than a minute."""
    census = Census(60, valid=10)
    census.learn(answer(1000.0, {b"a": 930.0, b"b": 980.0}, b"ab"), 100.0)
    return census


def test_the_silent_are_not_counted(census: Census) -> None:
    silent = census.silent_among(KEY, MEMBERS, 101.0)
    assert without(MEMBERS, frozenset(silent)) == [b"normal", b"specific.c!1"]
    assert census.about == b"ab"
    assert census.living == 3


def test_the_dead_are_left_out(census: Census) -> None:
    living = [b"specific.b!1", b"normal", b"specific.c!1"]
    assert census.without_dead(0, KEY, MEMBERS, 101.0) == living
    assert census.take_removals() == {(0, KEY): [b"specific.a!1", b"x.a!2"]}
    assert not census.removals


def test_some_die_though_nothing_new_is_said(census: Census) -> None:
    census.learn(answer(1050.0, None, b"ab"), 150.0)
    assert census.without_dead(0, KEY, MEMBERS, 151.0) == [b"normal", b"specific.c!1"]


def test_what_is_old_says_nothing(census: Census) -> None:
    assert census.silent_among(KEY, MEMBERS, 110.0) == []
    assert census.without_dead(0, KEY, MEMBERS, 110.0) == MEMBERS
    assert not census.removals


def test_groups_without_them_are_not_looked_through_again(census: Census) -> None:
    others = [b"specific.c!1"]
    assert census.may_have_silent(KEY, 101.0)
    assert census.silent_among(KEY, others, 101.0) == []
    assert not census.may_have_silent(KEY, 101.0)
    assert census.may_have_silent(b"asgi:group:other", 101.0)
    census.learn(answer(1005.0, None, b"ab"), 105.0)
    assert not census.may_have_silent(KEY, 106.0)
    census.learn(answer(1005.0, {b"c": 980.0}, b"c"), 105.0)
    assert census.silent_among(KEY, others, 106.0) == others
