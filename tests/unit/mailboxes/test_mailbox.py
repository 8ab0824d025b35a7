"""One mailbox: its bound, the order of its messages, and who waits on it."""

from __future__ import annotations

from typing import Any

from channels_redis_fast.mailboxes.mailbox import UNENDING, Mailbox, MailboxGroup
from channels_redis_fast.mailboxes.waiters import ThreadWaiter

END = 1e6


def mailbox(capacity: int = 3, group: MailboxGroup | None = None) -> Mailbox:
    return Mailbox("name", capacity, group or MailboxGroup("key"))


def entry(n: int, ends: float = END) -> Any:
    return ends, {"n": n}, None, None


def numbers(box: Mailbox) -> list[int]:
    return [one[1]["n"] for one in box.messages or ()]


def test_the_first_goes_for_what_is_too_much() -> None:
    box = mailbox()
    assert [box.append(entry(n)) for n in range(5)] == [False, False, False, True, True]
    assert numbers(box) == [2, 3, 4]


def test_what_has_a_place_in_an_order_stays() -> None:
    box = mailbox()
    for n in (1, 2):
        box.append(entry(n, ends=UNENDING + n))
    assert not box.append(entry(3))
    assert box.append(entry(4))
    assert numbers(box) == [1, 2, 4]
    box.put_back(entry(0, ends=UNENDING))
    assert numbers(box) == [0, 1, 2, 4]
    assert not box.drop_ended(END - 1)


def test_what_somebody_comes_for_counts_extra() -> None:
    box = mailbox()
    box.called = 2
    assert not any(box.append(entry(n)) for n in range(5))
    assert box.append(entry(5))


def test_what_is_put_back_is_before_what_came_later() -> None:
    box = mailbox()
    for n in (1, 3):
        box.append(entry(n, ends=float(n)))
    box.put_back(entry(2, ends=2.0))
    box.put_back(entry(0, ends=0.0))
    assert numbers(box) == [0, 1, 2, 3]  # whatever the capacity


def test_what_is_put_first_does_not_outlive_the_next() -> None:
    box = mailbox()
    box.put_first({"n": 2}, ends=20.0)
    box.put_first({"n": 1}, ends=30.0)
    assert numbers(box) == [1, 2]
    assert box.drop_ended(20.0) == 2


def test_taking_and_what_ended() -> None:
    box = mailbox()
    assert box.take() is None
    for n in range(3):
        box.append(entry(n, ends=float(n)))
    assert box.drop_ended(0.5) == 1
    assert [box.take(), box.take(), box.take()] == [entry(1, 1.0), entry(2, 2.0), None]
    assert box.messages is None


def test_the_group_knows_which_have_messages() -> None:
    group = MailboxGroup("key")
    box, other = mailbox(group=group), mailbox(group=group)
    box.append(entry(0))
    other.append(entry(0))
    assert group.filled == {box, other}
    box.take()
    other.clear()
    assert group.filled == set()


def test_room_is_for_all() -> None:
    """A reader may pop as many as fit into the fullest that isn't full."""
    group = MailboxGroup("key")
    group.capacity = 3
    assert group.room() == 3
    box, full = mailbox(group=group), mailbox(group=group)
    for n in range(2):
        box.append(entry(n))
    assert group.room() == 1
    for n in range(3):
        full.append(entry(n))
    assert group.room() == 0  # they wait in Redis
    group.waiting = 1  # whose messages don't wait for a neighbour
    assert group.room() == 1


def test_who_waits_is_counted() -> None:
    group = MailboxGroup("key")
    box, first, second = mailbox(group=group), ThreadWaiter(), ThreadWaiter()
    box.enter(first)
    box.enter(second)
    assert group.waiting == 2
    assert box.next_waiter() is first
    first.is_called, box.called, group.waiting = True, 1, 1
    assert box.next_waiter() is second
    assert box.leave(first)
    assert not box.leave(first)
    assert (box.called, group.waiting) == (0, 1)
    assert box.leave(second)
    assert (box.called, group.waiting, box.next_waiter()) == (0, 0, None)


def test_one_who_was_called_in_vain_waits_as_before() -> None:
    box, waiter = mailbox(), ThreadWaiter()
    box.enter(waiter)
    waiter.is_called, box.called, box.inbox.waiting = True, 1, 0
    for _ in range(2):
        box.uncall(waiter)
        assert (waiter.is_called, box.called, box.inbox.waiting) == (False, 0, 1)
