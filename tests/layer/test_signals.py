"""`overloaded` and `relieved`: told in time, not too often, and without harm."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from channels.exceptions import ChannelFull

from channels_redis_fast import _overload, signals
from channels_redis_fast._overload import FillWatch
from channels_redis_fast.runtime import unconfirmed as unconfirmed_sends
from support.layers import opened, soon, unconfirmed
from support.polling import eventually
from support.servers import Server
from support.syncing import KINDS, blocking

Told = tuple[str, str, str, float]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Told]]:
    """What was told by the signals, as often as it is."""
    found: list[Told] = []

    def note(word: str) -> Any:
        def receiver(sender: Any, kind: str, name: str, fill: float, **_: Any) -> None:
            assert hasattr(sender, "group_send")
            found.append((word, kind, name, round(fill, 2)))

        return receiver

    monkeypatch.setattr(_overload, "_EVERY", 0.0)
    receivers = {signals.overloaded: note("over"), signals.relieved: note("less")}
    for signal, receiver in receivers.items():
        signal.connect(receiver)
    yield found
    for signal, receiver in receivers.items():
        signal.disconnect(receiver)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_channel_that_fills(
    valkey: Server, told: list[Told], kind: str
) -> None:
    async with opened(valkey.url, kind=kind, capacity=10) as layer:
        for _ in range(7):
            await layer.send("jobs", {})
        assert told == []
        await layer.send("jobs", {})
        assert told == [("over", "channel", "jobs", 0.8)]
        for _ in range(2):
            await layer.send("jobs", {})
        with pytest.raises(ChannelFull):
            await layer.send("jobs", {})
        assert [fill for *_, fill in told] == [0.8, 0.9, 1.0, 1.0]
        for _ in range(5):
            await soon(layer, "jobs")
        await layer.send("jobs", {})
        assert len(told) == 4  # 6 of 10
        for _ in range(4):
            await soon(layer, "jobs")
        await layer.send("jobs", {})
        assert told[4:] == [("less", "channel", "jobs", 0.3)]


def test_of_blocking_calls(valkey: Server, told: list[Told]) -> None:
    with blocking("core", valkey.url, capacity=1) as layer:
        layer.sync.send("jobs", {})
    assert told == [("over", "channel", "jobs", 1.0)]


async def test_a_process_that_falls_behind(valkey: Server, told: list[Told]) -> None:
    async with opened(valkey.url, capacity=5) as layer:
        await layer.group_add("room", "specific.elsewhere!a")
        for _ in range(6):
            await layer.group_send("room", {})
    name = "specific.elsewhere!"
    fills = (0.8, 1.0, 1.0)
    assert told == [("over", "channel", name, fill) for fill in fills]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_mailbox_that_nobody_reads(
    valkey: Server, told: list[Told], kind: str
) -> None:
    async with opened(valkey.url, kind=kind, capacity=5, expiry=2) as layer:
        slow, quick = [await layer.new_channel() for _ in range(2)]
        reading = asyncio.create_task(layer.receive(quick))
        for _ in range(4):
            await layer.send(slow, {})
        over = ("over", "mailbox", slow, 0.8)
        await eventually(lambda: over in told, "the first signal")
        for _ in range(4):
            await soon(layer, slow)
        less = ("less", "mailbox", slow, 0.0)
        await eventually(lambda: less in told, "the second signal")
        await layer.send(quick, {})
        await reading


async def test_sends_that_nobody_waits_for(
    server: Server, told: list[Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unconfirmed_sends, "_MOST", 10)
    async with unconfirmed("core", server.url, expiry=2) as layer:
        await layer.send("jobs", {})
        await layer.flush_sends()
        server.pause()
        for _ in range(9):
            await layer.send("jobs", {})
        over = ("over", "unconfirmed", str(layer._hosts[0]), 0.9)
        await eventually(lambda: over in told, "the first signal")
        server.resume()
        less = ("less", "unconfirmed", str(layer._hosts[0]), 0.0)
        await eventually(lambda: less in told, "the second signal")


def test_not_more_than_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, found = [100.0], []
    monkeypatch.setattr("channels_redis_fast._overload.time.monotonic", lambda: now[0])
    monkeypatch.setattr(
        _overload, "listener", lambda layer, is_over, **about: found.append(is_over)
    )
    watch = FillWatch()
    for seconds, fill in [(0, 0.9), (0.5, 0.9), (0.9, 0.1), (1.0, 0.6), (1.1, 0.1)]:
        now[0] = 100 + seconds
        watch.note(None, "channel", "jobs", fill)
    assert found == [True, False]
    watch.note(None, "channel", "others", 1.0)
    assert found == [True, False, True]


def test_names_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_overload, "listener", lambda *_, **about: None)
    watch = FillWatch()
    for number in range(2000):
        watch.note(None, "channel", str(number), 1.0)
    assert len(watch._told) == 1000


async def test_a_receiver_that_raises(valkey: Server, told: list[Told]) -> None:
    def receiver(**_: Any) -> None:
        raise ValueError("a test")

    signals.overloaded.connect(receiver)
    try:
        async with opened(valkey.url, capacity=1) as layer:
            await layer.send("jobs", {})
    finally:
        signals.overloaded.disconnect(receiver)
    assert len(told) == 1
