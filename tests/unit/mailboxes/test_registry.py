"""The channels of a process: what comes, what is dropped, how long they live."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from channels_redis_fast.mailboxes import registry
from channels_redis_fast.mailboxes.dropped import DropCounters
from channels_redis_fast.mailboxes.waiters import ChannelEnded, TaskWaiter, opened
from support.mailboxes import KEY, channels, put, taken

NAME, OTHER = f"{KEY}name", f"{KEY}other"


async def test_a_message_before_and_after_it_is_waited_for() -> None:
    boxes = channels()
    assert boxes.begin(NAME) is None
    boxes.open(NAME)
    put(boxes, NAME, 1)
    assert taken(boxes, NAME) == [1]
    waiter: Any = boxes.begin(NAME)
    assert isinstance(waiter, TaskWaiter)
    boxes.put(None, [NAME], {"n": 2}, None, asyncio.get_running_loop())
    assert opened(await waiter) == {"n": 2}


async def test_each_of_several_gets_its_own() -> None:
    boxes, message = channels(), {"n": 1}
    for name in (NAME, OTHER):
        boxes.open(name)
    waiting: Any = boxes.begin(OTHER)
    here = asyncio.get_running_loop()
    assert boxes.put(None, [NAME, OTHER], message, message.copy, here) == 0
    got: list[Any] = [opened(boxes.begin(NAME)), opened(await waiting)]  # type: ignore[arg-type]
    assert got == [message, message]
    assert got[0] is not got[1]


async def test_names_that_are_no_channels_of_the_key() -> None:
    boxes = channels()
    for name in (NAME, "another!name"):
        boxes.open(name)
    inbox, another = boxes.owners.inboxes()
    names = [NAME, "another!name", f"{KEY}nobody"]
    assert boxes.put(inbox, names, {"n": 1}, None) == 2
    assert boxes.put(None, names, {"n": 2}, None) == 1
    assert (inbox.name, another.name) == (KEY, "another!")
    assert taken(boxes, NAME) == [1, 2]
    assert taken(boxes, "another!name") == [2]


async def test_what_is_too_much_is_counted() -> None:
    counters = DropCounters()
    boxes = channels(counters)
    boxes.open(NAME)
    put(boxes, NAME, *range(5))
    assert taken(boxes, NAME) == [2, 3, 4]
    assert counters.snapshot() == {"dropped, the consumer doesn't read": 2}


async def test_what_is_too_old_is_counted() -> None:
    counters = DropCounters()
    boxes = channels(counters, expiry=0.0)
    held = [boxes.new(name) for name in (NAME, OTHER)]
    put(boxes, NAME, 1, 2)
    put(boxes, OTHER, 3)
    assert taken(boxes, NAME) == []
    boxes.sweep()
    assert counters.snapshot() == {"expired before being read": 3}
    assert boxes.snapshot() == {}
    assert set(boxes.names()) == set(held)


async def test_what_was_taken_in_vain_comes_first() -> None:
    boxes = channels()
    boxes.open(NAME)
    put(boxes, NAME, 2)
    boxes.put_first(NAME, {"n": 1})
    boxes.put_first(f"{KEY}nobody", {"n": 1})
    assert taken(boxes, NAME) == [1, 2]


@pytest.mark.parametrize("has_message", [True, False])
async def test_a_read_that_cannot_begin_loses_nothing(has_message: bool) -> None:
    """As when the running loop is being shut down."""

    def refuse(inbox: Any) -> None:
        raise RuntimeError("no loop")

    boxes = channels(on_wait=refuse)
    boxes.open(NAME)
    if has_message:
        put(boxes, NAME, 1)
    with pytest.raises(RuntimeError, match="no loop"):
        boxes.begin(NAME)
    (inbox,) = boxes.owners.inboxes()
    assert inbox.waiting == 0
    assert NAME in boxes.snapshot() if has_message else not boxes.snapshot()


async def test_a_key_is_asked_for_while_nobody_reads_it() -> None:
    asked: list[str] = []
    boxes = channels(on_wait=lambda inbox: asked.append(inbox.name))
    boxes.open(NAME)
    taken(boxes, NAME)
    (inbox,) = boxes.owners.inboxes()
    inbox.stalled, inbox.reader = False, asyncio  # whatever reads, elsewhere
    inbox.reader = type("Elsewhere", (), {"loop": None})()
    put(boxes, NAME, 1)
    assert isinstance(boxes.begin(NAME), tuple)  # there is a message, and a reader
    assert asked == [KEY]


async def test_a_snapshot_stays_as_it_was() -> None:
    boxes = channels()
    boxes.open(NAME)
    put(boxes, NAME, 1, 2)
    before = boxes.snapshot()
    boxes.clear()
    assert before == {NAME: ({"n": 1}, {"n": 2})}
    assert boxes.snapshot() == {}


# How long they live


def test_a_channel_lives_as_long_as_its_name() -> None:
    ended: list[str] = []
    boxes = channels(expiry=0.0, on_end=ended.append)
    held = boxes.new(NAME)
    assert boxes.new(NAME) is held
    boxes.sweep()
    assert NAME in boxes
    del held
    gc.collect()
    boxes.sweep()
    assert ended == [NAME]
    assert len(boxes) == len(boxes.owners.inboxes()) == 0


async def test_a_channel_lives_while_somebody_waits() -> None:
    boxes = channels(expiry=0.0)
    boxes.open(NAME)
    waiter: Any = boxes.begin(NAME)
    boxes.sweep()
    assert NAME in boxes
    waiter.leave()
    boxes.sweep()
    assert NAME not in boxes


def test_many_channels_end_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_PORTION", 10)
    ended: list[str] = []
    boxes = channels(expiry=0.0, on_end=ended.append)
    for n in range(25):
        boxes.open(f"{KEY}{n}")
    boxes.sweep()
    assert (len(ended), boxes.is_behind, boxes.is_swept(60)) == (10, True, False)
    while boxes.is_behind:
        boxes.end_some()
    assert sorted(ended) == sorted(f"{KEY}{n}" for n in range(25))
    assert boxes.is_swept(60)


async def test_a_channel_that_is_ended() -> None:
    """At once, with its messages; what becomes of its name doesn't matter any more."""
    ended: list[str] = []
    boxes = channels(expiry=0.0, on_end=ended.append)
    held = boxes.new(NAME)
    put(boxes, NAME, 1)
    boxes.end(NAME)
    boxes.end(NAME)
    assert ended == [NAME]
    assert NAME not in boxes
    assert boxes.put(None, [NAME], {"n": 2}, None) == 1
    again = boxes.new(NAME)
    del held
    gc.collect()
    boxes.sweep()
    assert NAME in boxes
    assert taken(boxes, again) == []
    (inbox,) = boxes.owners.inboxes()
    assert (inbox.boxes, inbox.filled, inbox.waiting) == (1, set(), 0)


async def test_waits_end_with_their_channel() -> None:
    """But for one that was given a message already."""
    boxes, here = channels(), asyncio.get_running_loop()
    boxes.open(NAME)
    waiters: list[Any] = [boxes.begin(NAME), boxes.begin(NAME)]
    tasks = [asyncio.ensure_future(_wait(waiter)) for waiter in waiters]
    await asyncio.sleep(0)
    boxes.put(None, [NAME], {"n": 1}, None, here)
    boxes.end(NAME)
    first, second = await asyncio.gather(*tasks, return_exceptions=True)
    assert opened(first) == {"n": 1}  # type: ignore[arg-type]
    assert isinstance(second, ChannelEnded)
    assert boxes.owners.inboxes()[0].waiting == 0


async def _wait(waiter: Any) -> Any:
    return await waiter
