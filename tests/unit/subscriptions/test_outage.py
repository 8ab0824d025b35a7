"""When the loss of connections is told, and their return."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from channels_redis_fast.subscriptions.outage import OutageNotifier


class Connection:
    """What can be lost."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()


class Outages:
    """A notifier, and what it told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.notifier = OutageNotifier(
            lambda: self.told.append("gone"), lambda: self.told.append("back")
        )


async def test_once_for_several() -> None:
    outages, one, other = Outages(), Connection(), Connection()
    notifier = outages.notifier
    notifier.back(one)
    for lost in one, other, one:
        notifier.lost(lost)
    notifier.back(one)
    assert outages.told == ["gone"]
    notifier.back(other)
    notifier.back(other)
    assert outages.told == ["gone", "back"]


async def test_a_new_one_keeps_an_outage_from_ending() -> None:
    outages, one, new = Outages(), Connection(), Connection()
    notifier = outages.notifier
    notifier.joined(new)  # there is none: it may join
    notifier.lost(one)
    notifier.joined(new)
    notifier.back(one)
    assert outages.told == ["gone"]
    notifier.back(new)
    assert outages.told == ["gone", "back"]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (OutageNotifier.needless, ["gone", "back"]),
        (OutageNotifier.replaced, ["gone"]),  # there may be no server for the other one
    ],
)
async def test_one_that_nobody_needs_any_more(
    how: Callable[[OutageNotifier, Connection], None], told: list[str]
) -> None:
    outages, one = Outages(), Connection()
    outages.notifier.lost(one)
    how(outages.notifier, one)
    assert outages.told == told
    outages.notifier.review(lambda: False)
    assert outages.told == told
    outages.notifier.review(lambda: True)
    assert outages.told == ["gone", "back"]


async def test_a_loop_that_stands_still_keeps_none_from_ending() -> None:
    outages, one, other = Outages(), Connection(), Connection()
    other.loop = asyncio.new_event_loop()
    for lost in one, other:
        outages.notifier.lost(lost)
    other.loop.close()
    outages.notifier.back(one)
    assert outages.told == ["gone"]
    outages.notifier.review(lambda: True)
    assert outages.told == ["gone", "back"]
