"""What a process forgets when a group was cleared, whatever calls come meanwhile."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from redis.exceptions import ConnectionError as Lost

from channels_redis_fast.core import RedisChannelLayer

GROUP = "room"


class Cut(Lost):
    """An error that is raised, and no answer."""


@pytest.fixture
def memberships() -> Any:
    """Of a layer without a server: two channels are members."""
    found = RedisChannelLayer()._memberships
    for channel in ("a", "b"):
        with found.joining(GROUP, channel):
            pass
    found.clearing.note(GROUP)
    return found


def members(memberships: Any) -> set[str]:
    return {channel for _, channel in memberships.snapshot()}


def look(memberships: Any, answer: Any, *meanwhile: Any) -> None:
    """Looks once: Redis answers so, while this and that is done."""

    async def run_all(requests: list[Any]) -> list[Any]:
        assert len(requests) == 1
        for work in meanwhile:
            work()
        if isinstance(answer, Cut):
            raise answer
        return [answer]

    with pytest.raises(StopIteration):
        memberships.clearing.look(run_all).send(None)


def test_who_is_gone_is_forgotten(memberships: Any) -> None:
    look(memberships, [b"b", b"\xff", b"another"])
    assert members(memberships) == {"b"}
    assert memberships.groups_of == {"b": {GROUP}}
    assert not memberships.clearing.is_due


def test_only_groups_with_members_are_looked_at(memberships: Any) -> None:
    """Others may write anything into a notice: names that have no bytes, too."""
    look(memberships, [b"a", b"b"])
    for name in "\ud800", "elsewhere", "":
        memberships.clearing.note(name)
        assert not memberships.clearing.is_due


@pytest.mark.parametrize("answer", [Cut(), Lost()], ids=["raised", "answered"])
def test_an_answer_that_fails_forgets_nobody(memberships: Any, answer: Any) -> None:
    look(memberships, answer)
    assert members(memberships) == {"a", "b"}
    memberships.clearing._not_before = 0.0
    assert memberships.clearing.is_due
    assert memberships.refreshes_due


def test_who_joins_meanwhile_stays(memberships: Any) -> None:
    def join_again() -> None:
        with memberships.joining(GROUP, "a"):
            pass

    look(memberships, [], join_again)
    assert members(memberships) == {"a"}


def test_who_is_joining_stays(memberships: Any) -> None:
    """Whether Redis was told before it was asked is not known."""
    with ExitStack() as calls:
        calls.enter_context(memberships.joining(GROUP, "a"))
        look(memberships, [])
        assert members(memberships) == {"a"}
    assert members(memberships) == {"a"}


def test_who_ends_or_leaves_meanwhile(memberships: Any) -> None:
    def leave() -> None:
        memberships.end("a")
        with memberships.leaving(GROUP, "b"):
            pass

    look(memberships, [], leave)
    assert members(memberships) == set()
    assert memberships.groups_of == {}


def test_many_groups_are_one_question(memberships: Any) -> None:
    """Callers who block wait for it; those that fail keep nobody else waiting."""
    names = ["room", "hall", "yard"]
    for name in names[1:]:
        with memberships.joining(name, "c"):
            pass
        memberships.clearing.note(name)
    asked = []

    async def run_all(requests: list[Any]) -> list[Any]:
        keys = [command[1].decode().rpartition(":")[2] for _, command in requests]
        asked.append(sorted(keys))
        return [Lost() if key == "hall" else [] for key in keys]

    with pytest.raises(StopIteration):
        memberships.clearing.look(run_all).send(None)
    assert asked == [sorted(names)]
    assert memberships.snapshot() == [("hall", "c")]
    assert memberships.clearing._groups == {"hall"}


@pytest.mark.parametrize("group", [None, 5, ["room"], b"room"])
def test_what_is_no_group_is_ignored(group: Any) -> None:
    memberships = RedisChannelLayer()._memberships
    memberships.clearing.note(group)
    assert not memberships.clearing.is_due
