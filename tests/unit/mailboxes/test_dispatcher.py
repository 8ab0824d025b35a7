"""Who gets a message when several wait, also in other event loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from channels_redis_fast.mailboxes.dropped import DropCounters
from channels_redis_fast.mailboxes.registry import LocalChannels
from channels_redis_fast.mailboxes.waiters import ThreadWaiter, opened
from support.loops import LoopThread
from support.mailboxes import KEY, channels, put, taken
from support.polling import until

NAME = f"{KEY}name"


async def receive(boxes: LocalChannels) -> int:
    found: Any = boxes.begin(NAME)
    entry = found if isinstance(found, tuple) else await found
    return int(opened(entry)["n"])


@pytest.fixture
def boxes() -> LocalChannels:
    made = channels()
    made.open(NAME)
    return made


def waiting(boxes: LocalChannels) -> int:
    (inbox,) = boxes.owners.inboxes()
    return inbox.waiting


async def test_in_the_order_in_which_they_wait(boxes: LocalChannels) -> None:
    tasks = [asyncio.create_task(receive(boxes)) for _ in range(3)]
    await asyncio.sleep(0)
    put(boxes, NAME, 0)
    boxes.put(None, [NAME], {"n": 1}, None, asyncio.get_running_loop())
    put(boxes, NAME, 2)
    assert await asyncio.gather(*tasks) == [0, 1, 2]
    assert waiting(boxes) == 0


async def test_who_is_cancelled_loses_no_message(boxes: LocalChannels) -> None:
    """Given before, or at the same time: it goes back to its place, or to the next."""
    here = asyncio.get_running_loop()
    first, second = (asyncio.create_task(receive(boxes)) for _ in range(2))
    await asyncio.sleep(0)
    for n in (1, 2, 3):
        boxes.put(None, [NAME], {"n": n}, None, here)
    first.cancel()
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert second.result() == 2
    assert taken(boxes, NAME) == [1, 3]
    third, fourth = (asyncio.create_task(receive(boxes)) for _ in range(2))
    await asyncio.sleep(0)
    boxes.put(None, [NAME], {"n": 4}, None, here)
    third.cancel()
    assert await fourth == 4


async def test_who_is_forgotten_is_called_for_nothing(boxes: LocalChannels) -> None:
    """A call is on its way to one who leaves; the next one comes for the message."""
    here = asyncio.get_running_loop()
    leaving: Any = boxes.begin(NAME)
    box = leaving.box
    waiter = ThreadWaiter()
    boxes.begin_in_thread(NAME, waiter)
    leaving.is_called, box.called, box.inbox.waiting = True, 1, 1
    box.append((here.time() + 60, {"n": 1}, None, None))
    leaving.leave()
    assert waiter.message() == {"n": 1}
    assert (box.called, waiting(boxes)) == (0, 0)


def test_a_thread_waits_among_tasks(boxes: LocalChannels) -> None:
    first, second = ThreadWaiter(), ThreadWaiter()
    for waiter in (first, second):
        boxes.begin_in_thread(NAME, waiter)
    put(boxes, NAME, 1)
    assert (first.message(), second.message()) == ({"n": 1}, None)
    boxes.withdraw(first)  # who was interrupted just then
    assert second.message() == {"n": 1}
    boxes.withdraw(second)
    third = ThreadWaiter()
    boxes.begin_in_thread(NAME, third)
    assert third.message() == {"n": 1}


def test_who_waits_in_another_loop_comes_for_it(
    boxes: LocalChannels, threads: list[LoopThread]
) -> None:
    first, second = threads
    getting = first.begin(receive(boxes))
    until(lambda: waiting(boxes) == 1, "the wait")
    put(boxes, NAME, 1)
    assert getting.result(20) == 1
    # One whose loop stands still leaves it to another one, who came later.
    left = first.begin(receive(boxes))
    until(lambda: waiting(boxes) == 1, "the wait")
    first.stop()
    getting = second.begin(receive(boxes))
    until(lambda: waiting(boxes) == 2, "the other wait")
    put(boxes, NAME, 2)
    assert getting.result(20) == 2
    assert not left.done()
    left_task = next(iter(asyncio.all_tasks(first.loop)))
    left_task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_what_a_loop_that_stands_still_was_called_for(
    boxes: LocalChannels, new_loop: Callable[[], Any]
) -> None:
    """It is there for anybody, and for that loop when it goes on."""
    loop = new_loop()
    left = loop.create_task(receive(boxes))
    loop.run_until_complete(asyncio.sleep(0))
    put(boxes, NAME, 1, 2)
    assert len(boxes.snapshot()[NAME]) == 2
    waiter = ThreadWaiter()
    boxes.begin_in_thread(NAME, waiter)
    assert waiter.message() == {"n": 1}
    assert loop.run_until_complete(left) == 2
    loop.close()


def test_who_left_before_it_came(
    boxes: LocalChannels, new_loop: Callable[[], Any]
) -> None:
    """It was called, and takes nothing any more."""
    loop, waiters = new_loop(), []

    async def wait() -> None:
        waiters.append(boxes.begin(NAME))

    loop.run_until_complete(wait())
    put(boxes, NAME, 1)
    (waiter,) = waiters
    waiter.leave()
    loop.run_until_complete(asyncio.sleep(0))
    assert len(boxes.snapshot()[NAME]) == 1
    loop.close()


def test_who_is_called_and_does_not_come(
    boxes: LocalChannels, threads: list[LoopThread]
) -> None:
    """Its loop is busy for long: another one is called at the next sweep."""
    first, go_on, waiter = threads[0], threading.Event(), ThreadWaiter()
    late = first.begin(receive(boxes))
    until(lambda: waiting(boxes) == 1, "the wait")
    first.loop.call_soon_threadsafe(go_on.wait, 20)
    boxes.begin_in_thread(NAME, waiter)
    put(boxes, NAME, 1)
    assert waiter.message() is None
    boxes.sweep()
    assert waiter.message() == {"n": 1}
    go_on.set()
    put(boxes, NAME, 2)
    assert late.result(20) == 2


def test_what_is_put_first_is_for_who_waits(boxes: LocalChannels) -> None:
    waiter = ThreadWaiter()
    boxes.begin_in_thread(NAME, waiter)
    boxes.put_first(NAME, {"n": 1})
    assert waiter.message() == {"n": 1}


def test_who_waits_in_a_loop_that_is_closed(
    boxes: LocalChannels, new_loop: Callable[[], Any]
) -> None:
    loop = new_loop()
    left = loop.create_task(receive(boxes))
    loop.run_until_complete(asyncio.sleep(0))
    boxes.put(None, [NAME], {"n": 1}, None, loop)  # it was given, and never taken
    boxes.abandon(loop)
    loop.close()
    assert waiting(boxes) == 0
    assert list(boxes.snapshot()[NAME]) == [{"n": 1}]
    left._log_destroy_pending = False


async def test_what_comes_back_when_its_channel_ended() -> None:
    counters = DropCounters()
    boxes = channels(counters, expiry=0.0)
    boxes.open(NAME)
    waiter: Any = boxes.begin(NAME)
    boxes.put(None, [NAME], {"n": 1}, None, asyncio.get_running_loop())
    boxes.sweep()
    assert NAME not in boxes
    waiter.leave()
    assert counters.snapshot() == {"expired before being read": 1}


async def test_who_is_collected_as_garbage(boxes: LocalChannels) -> None:
    """It may be in the midst of other work: its message goes back at the next sweep."""
    receiving: Any = receive(boxes).__await__()
    next(receiving)
    boxes.put(None, [NAME], {"n": 1}, None, asyncio.get_running_loop())
    receiving.close()
    assert not boxes.snapshot()
    boxes.sweep()
    assert taken(boxes, NAME) == [1]
