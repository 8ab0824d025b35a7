"""When memberships end that nobody refreshes."""

from __future__ import annotations

import pytest

from channels_redis_fast.runtime import membership_timers
from channels_redis_fast.runtime.membership_timers import MembershipTimers

ROOM = b"room"


class Timers(MembershipTimers):
    """Timers with a clock that the test sets, and the channels that they made leave."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, seconds: float | None = 10.0
    ) -> None:
        self.now = 1000.0
        monkeypatch.setattr(
            membership_timers, "time", type("Time", (), {"monotonic": self._monotonic})
        )
        self.left: list[str] = []
        super().__init__(seconds, lambda name, channel: self.left.append(channel))

    def _monotonic(self) -> float:
        return self.now


def test_each_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers(monkeypatch)
    for channel in "a", "b", "c":
        timers.begin(ROOM, channel)
        timers.now += 1
    timers.end_due()
    assert timers.left == []
    timers.now = 1011.0
    timers.end_due()
    assert timers.left == ["a", "b"]
    timers.now += 10
    timers.end_due()
    timers.end_due()
    assert timers.left == ["a", "b", "c"]


def test_one_that_begins_anew_lasts_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers(monkeypatch)
    timers.begin(ROOM, "a")
    timers.begin(ROOM, "b")
    timers.now += 5
    timers.begin(ROOM, "a")
    timers.now += 5
    timers.end_due()
    assert timers.left == ["b"]
    timers.now += 5
    timers.end_due()
    assert timers.left == ["b", "a"]


def test_one_that_ended_before(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers(monkeypatch)
    timers.begin(ROOM, "a")
    timers.forget(ROOM, "a")
    timers.forget(ROOM, "unknown")
    timers.now += 100
    timers.end_due()
    assert timers.left == []


def test_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers(monkeypatch, None)
    timers.begin(ROOM, "a")
    timers.now += 10**9
    timers.end_due()
    timers.forget(ROOM, "a")
    assert timers.left == []
