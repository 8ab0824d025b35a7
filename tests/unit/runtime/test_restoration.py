"""What a server is told that may have lost data, by what it answers."""

from __future__ import annotations

from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.commands.errors import reply_error
from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.runtime import restoration
from channels_redis_fast.runtime.memberships import Memberships

HERE, THERE = b"master_replid:here\r\n", b"master_replid:there\r\n"
LOADING = reply_error("LOADING the server reads its data")
NOPERM = reply_error("NOPERM this user has no right")


def owns_all(key: bytes | str) -> bool:
    """Of one server, which has all keys."""
    return True


@pytest.fixture
def memberships() -> Memberships:
    """Three channels in a group, one in another."""
    layer = RedisChannelLayer()
    memberships = layer._memberships
    for group, channel in [("room", c) for c in "abc"] + [("other", "a")]:
        with memberships.joining(group, channel):
            pass
    return memberships


def told(
    memberships: Memberships, *replies: Any, anew: bool = False, owns: Any = owns_all
) -> list[list[Any]]:
    """The commands of each step, if the server answers so."""
    steps = memberships.restoration.steps(0, owns, anew)
    found = [next(steps)]
    for reply in replies:
        try:
            found.append(steps.send(reply))
        except StopIteration:
            break
    else:
        steps.close()
    return found


def rejoined(commands: list[Any]) -> dict[bytes, set[str]]:
    """By the key of a group, the channels that join it again."""
    return {command[3]: {*command[4:]} & {"a", "b", "c"} for command in commands}


def test_all_gone(memberships: Memberships) -> None:
    """It lost its data: everything joins again."""
    asked, checked, again = told(memberships, [HERE], [None] * 4)
    assert asked == [(b"INFO", b"replication")]
    assert len(checked) == 4
    assert rejoined(again) == {
        b"asgi:group:room": {"a", "b", "c"},
        b"asgi:group:other": {"a"},
    }


@pytest.mark.parametrize("seconds", [30.0, -1.0])
def test_some_there(
    memberships: Memberships, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """A failover may have lost what is recent; what is older, others took away."""
    monkeypatch.setattr(restoration, "_RECENT", seconds)
    *_, again = told(memberships, [HERE], [b"1", None, b"1", b"1"])
    assert rejoined(again) == ({b"asgi:group:room": {"b"}} if seconds > 0 else {})


def test_a_history_that_is_known(memberships: Memberships) -> None:
    """Nothing was lost, unless the server came by the keys since."""
    for history in HERE, THERE:
        assert len(told(memberships, [history], [b"1"] * 4, [])) == 3
    assert len(told(memberships, [HERE], [])) == 1
    assert len(told(memberships, [HERE], [b"1"] * 4, [], anew=True)) == 3


@pytest.mark.parametrize("step", range(3))
def test_what_passes_is_asked_again(memberships: Memberships, step: int) -> None:
    """The server counts as one that nothing is known of."""
    answers: list[list[Any]] = [[HERE], [None] * 4, [b"1", b"1"]]
    answers[step] = [LOADING] * len(answers[step])
    with pytest.raises(errors.BusyLoadingError):
        told(memberships, *answers)
    assert len(told(memberships, [HERE], [None] * 4, [b"1", b"1"])) == 3


def test_what_stays_refused_is_told(
    memberships: Memberships, caplog: pytest.LogCaptureFixture
) -> None:
    """One of a group can't be asked for; one is at another node of a Cluster."""
    replies = [None, NOPERM, reply_error("ASK 1 node:1"), None]
    *_, again = told(memberships, [NOPERM], replies)
    # One counts as there: only what is recent joins again.
    assert rejoined(again) == {b"asgi:group:room": {"a"}, b"asgi:group:other": {"a"}}
    assert len(caplog.records) == 1
    assert "no right" in caplog.text
    # It doesn't say what its history is: each connection asks.
    assert len(told(memberships, [NOPERM], [b"1"] * 4, [])) == 3


def test_each_server_has_its_own(memberships: Memberships) -> None:
    def owns(key: bytes | str) -> bool:
        return bool(key == b"asgi:group:other")

    *_, again = told(memberships, [HERE], [None], owns=owns)
    assert rejoined(again) == {b"asgi:group:other": {"a"}}


def test_who_left_meanwhile(memberships: Memberships) -> None:
    """While it was asked for, or joined again: then it is to leave again."""
    steps = memberships.restoration.steps(0, owns_all)
    next(steps)
    steps.send([HERE])
    with memberships.leaving("room", "a"):
        pass
    again = steps.send([None] * 4)
    assert rejoined(again)[b"asgi:group:room"] == {"b", "c"}
    with memberships.leaving("room", "b"):
        pass
    memberships.end("c")
    with pytest.raises(StopIteration):
        steps.send([b"1", b"1"])
    assert memberships._left[0]["room"] == {"b", "c"}


@pytest.mark.parametrize("replies", [[b"1", LOADING], None])
def test_who_left_while_it_failed(
    memberships: Memberships, replies: list[Any] | None
) -> None:
    """One group was refused, or the connection broke: some may have joined again."""
    steps = memberships.restoration.steps(0, owns_all)
    next(steps)
    steps.send([HERE])
    steps.send([None] * 4)
    with memberships.leaving("room", "a"):
        pass
    if replies:
        with pytest.raises(errors.BusyLoadingError):
            steps.send(replies)
    else:
        steps.close()
    assert memberships._left[0]["room"] == {"a"}
