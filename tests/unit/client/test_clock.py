"""By which clock messages are stamped, where those of machines differ."""

from __future__ import annotations

import time
from typing import Any

import pytest

from channels_redis_fast.client import clock
from channels_redis_fast.client.clock import ServerClock, clock_of


class Stamps:
    """What stamps messages."""

    clock_offset = 0


class Host:
    """What is told the time of new connections."""

    note_time: Any = None


def at(seconds: float) -> list[bytes]:
    """An answer to TIME."""
    return [b"%d" % seconds, b"%d" % (seconds % 1 * 1e6)]


def test_the_first_host_that_told_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it is the same in all processes, whichever they reach first."""
    monkeypatch.setattr(clock, "time", type("Time", (), {"time": lambda: 1000.0}))
    stamps = [Stamps(), Stamps()]
    known = ServerClock(stamps)

    def offsets() -> set[int]:
        return {one.clock_offset for one in stamps}

    known.note(2, at(1090.4))
    assert offsets() == {90}
    known.note(1, at(940.0))
    assert offsets() == {-60}
    known.note(2, at(1000.0))
    assert offsets() == {-60}
    for nothing in RuntimeError("not allowed"), None, []:
        known.note(0, nothing)
    assert offsets() == {-60}
    known.note(1, at(999.0))  # it was set
    assert offsets() == {-1}


def test_only_what_encrypts_needs_one() -> None:
    host, serializer = Host(), type("Serializer", (), {})()
    assert clock_of([serializer, None], [host]) is None
    assert host.note_time is None
    serializer.crypter = Stamps()
    assert clock_of([serializer], [host]) is not None
    host.note_time(at(time.time() + 50))
    assert serializer.crypter.clock_offset in (49, 50, 51)
