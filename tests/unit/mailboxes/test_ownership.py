"""Who reads a key: one at a time, until it stops, stands still or is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from channels_redis_fast.mailboxes.mailbox import MailboxGroup
from channels_redis_fast.mailboxes.ownership import Ownership
from channels_redis_fast.mailboxes.registry import LocalChannels
from channels_redis_fast.mailboxes.waiters import ThreadWaiter
from support.mailboxes import KEY, Reader, channels, put

NAME = f"{KEY}name"


@pytest.fixture
def loop(new_loop: Callable[[], Any]) -> Any:
    made = new_loop()
    yield made
    made.close()


@pytest.fixture
def boxes() -> LocalChannels:
    made = channels()
    made.open(NAME)
    return made


@pytest.fixture
def owners(boxes: LocalChannels) -> Ownership:
    return boxes.owners


@pytest.fixture
def inbox(owners: Ownership) -> MailboxGroup:
    (one,) = owners.inboxes()
    return one


def test_one_reads_for_all(owners: Ownership, inbox: MailboxGroup, loop: Any) -> None:
    first, second = Reader(loop), Reader(loop)
    assert owners.orphans() == [inbox]
    assert owners.ensure(inbox, lambda _: first) is first
    assert owners.ensure(inbox, lambda _: second) is first
    assert owners.orphans() == []
    owners.release(inbox, second)  # which never was the owner
    assert inbox.reader is first
    owners.release(inbox, first)
    assert owners.orphans() == [inbox]
    assert owners.ensure(inbox, lambda _: second) is second


def test_another_one_takes_over(
    owners: Ownership, inbox: MailboxGroup, loop: Any
) -> None:
    still, second = Reader(loop), Reader(loop)
    owners.ensure(inbox, lambda _: still)
    still.is_still = True
    assert owners.orphans() == [inbox]
    assert owners.ensure(inbox, lambda _: second) is second
    owners.release(inbox, still)  # when its loop goes on
    assert inbox.reader is second
    assert owners.room(inbox, still) == 0


def test_an_owner_whose_loop_was_closed(
    owners: Ownership, inbox: MailboxGroup, loop: Any
) -> None:
    owners.ensure(inbox, lambda _: Reader(loop))
    loop.close()
    assert owners.orphans() == [inbox]
    assert inbox.reader is None


def test_room(
    boxes: LocalChannels, owners: Ownership, inbox: MailboxGroup, loop: Any
) -> None:
    """Who may read no more has to be told when there is room again."""
    owner = owners.ensure(inbox, lambda _: Reader(loop))
    assert (owners.room(inbox, owner), inbox.is_fed_in(loop)) == (3, True)
    put(boxes, NAME, 1, 2, 3)
    assert (owners.room(inbox, owner), inbox.is_fed_in(loop)) == (0, False)
    boxes.clear()
    assert (owners.room(inbox, owner), inbox.is_fed_in(None)) == (3, True)
    owners.release(inbox, owner)
    assert not inbox.is_fed_in(None)


def test_an_owner_without_channels(loop: Any) -> None:
    """It is told; a channel that is made meanwhile keeps it."""
    boxes = channels(expiry=0.0)
    boxes.open(NAME)
    (inbox,) = boxes.owners.inboxes()
    owner = boxes.owners.ensure(inbox, lambda _: Reader(loop))
    assert boxes.owners.needless() == []
    boxes.sweep()
    assert len(boxes) == 0
    assert boxes.owners.needless() == [owner]
    boxes.open(NAME)
    assert boxes.owners.needless() == []
    assert boxes.owners.inboxes() == [inbox]
    boxes.sweep()
    boxes.owners.release(inbox, owner)
    assert boxes.owners.inboxes() == []


def test_a_thread_that_waits_hears_of_the_end(
    boxes: LocalChannels, owners: Ownership, inbox: MailboxGroup, loop: Any
) -> None:
    owner, waiter = owners.ensure(inbox, lambda _: Reader(loop)), ThreadWaiter()
    boxes.begin_in_thread(NAME, waiter)
    owners.release(inbox, owner)
    waiter.wait(None)  # returns
    assert waiter.message() is None


async def test_in_which_loops_somebody_waits(
    boxes: LocalChannels, owners: Ownership, inbox: MailboxGroup
) -> None:
    boxes.begin_in_thread(NAME, ThreadWaiter())
    assert owners.waiting_loops(inbox) == set()
    waiter: Any = boxes.begin(NAME)
    assert owners.waiting_loops(inbox) == {asyncio.get_running_loop()}
    waiter.leave()
    assert owners.waiting_loops(inbox) == set()


async def test_an_error_for_all_who_wait(
    boxes: LocalChannels, owners: Ownership, inbox: MailboxGroup
) -> None:
    """But for who has a message already."""
    served: Any = boxes.begin(NAME)
    boxes.put(None, [NAME], {"n": 1}, None, asyncio.get_running_loop())
    refused: Any = boxes.begin(NAME)
    thread = ThreadWaiter()
    boxes.begin_in_thread(NAME, thread)
    owners.refuse(inbox, lambda: ValueError("refused"))
    assert (await served)[1] == {"n": 1}
    for wait in (refused.__await__().__next__, thread.message):
        with pytest.raises(ValueError, match="refused"):
            wait()
    assert inbox.waiting == 0


def test_no_error_for_who_has_a_message_to_come_for(
    boxes: LocalChannels, owners: Ownership, inbox: MailboxGroup, loop: Any
) -> None:
    async def receive() -> Any:
        waiter: Any = boxes.begin(NAME)
        return (await waiter)[1]

    task = loop.create_task(receive())
    loop.run_until_complete(asyncio.sleep(0))
    put(boxes, NAME, 1)
    boxes.begin_in_thread(f"{KEY}other", ThreadWaiter())
    owners.refuse(inbox, lambda: ValueError("refused"))
    assert loop.run_until_complete(task) == {"n": 1}
