"""Brings messages together with who waits for them, across event loops and threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque

from .dropped import DropCounters
from .mailbox import Mailbox
from .waiters import Entry, TaskWaiter, Waiter, call


class Dispatcher:
    """Gives each message in a mailbox to one of those who wait on it.

    Who waits in another loop is called, and comes for the message itself: it stays in
    the mailbox meanwhile, as that loop may stand still.
    """

    def __init__(
        self,
        lock: threading.RLock,
        boxes: dict[str, Mailbox],
        counters: DropCounters,
    ) -> None:
        self._lock = lock
        self._boxes = boxes
        self._counters = counters
        # Who waited in tasks that were collected as garbage, which may be anywhere, so
        # without the lock.
        self._abandoned: deque[TaskWaiter] = deque()

    # Who waits; from any thread

    def withdraw(self, waiter: Waiter) -> None:
        """Ends a wait; a message that was given goes back to where it was."""
        with self._lock:
            box = waiter.box
            if box.waiter is waiter:
                box.waiter = None
            if self.forget(waiter):
                return
            if waiter.error is None and (entry := waiter.give_back()):
                self.put_back(box, entry)

    def withdraw_later(self, waiter: TaskWaiter) -> None:
        """As `withdraw`, at the next sweep: this may interrupt the work of others."""
        self._abandoned.append(waiter)

    def withdraw_abandoned(self) -> None:
        """Ends the waits that were left to be ended later."""
        while self._abandoned:
            self._abandoned.popleft().leave()

    def forget(self, waiter: Waiter) -> bool:
        """Ends a wait to which no message is on its way; whether there was one."""
        with self._lock:
            if ended := waiter.box.leave(waiter):
                self.call_next(waiter.box)  # another one, if this one was called
            return bool(ended)

    # Messages; the lock is held

    def enter(self, box: Mailbox, loop: asyncio.AbstractEventLoop) -> TaskWaiter:
        """What a task of that loop, the running one, awaits for the next message."""
        waiter = box.waiter
        if waiter is None or waiter.is_used or waiter.loop is not loop:
            box.waiter = waiter = TaskWaiter(box, loop, self)
        waiter.is_used = True
        box.enter(waiter)
        return waiter

    def take(self, box: Mailbox) -> Entry | None:
        """The first message that has not ended."""
        now = time.monotonic()
        if box.messages and box.messages[0][0] <= now:
            self.drop_ended(box, now)
        return box.take()

    def keep(self, box: Mailbox, entry: Entry) -> None:
        """Keeps a message, and calls who waits for it."""
        is_one_lost = box.append(entry)
        self.call_next(box)
        if is_one_lost:
            self._counters.count("dropped, the consumer doesn't read", box.name)

    def put_back(self, box: Mailbox, entry: Entry) -> None:
        """Puts a message where it was: before all that came later."""
        if self._boxes.get(box.name) is not box:
            self._count_ended(box, 1)
            return
        box.put_back(entry)
        self.call_next(box)

    def call_next(self, box: Mailbox) -> None:
        """Calls one more of those who wait, if there is a message to come for."""
        while box.messages and (waiter := box.next_waiter()) is not None:
            waiter.is_called = True
            box.called += 1
            box.inbox.waiting -= 1
            if call(waiter, self._fetch, waiter):
                return
            box.leave(waiter)  # its loop is closed

    def drop_ended(self, box: Mailbox, now: float) -> None:
        """Drops the messages that ended."""
        self._count_ended(box, box.drop_ended(now))

    def _fetch(self, waiter: Waiter) -> None:
        """In the waiter's loop: it was called, and others may have come before."""
        with self._lock:
            if not waiter.is_called:
                return
            box = waiter.box
            box.uncall(waiter)
            if (entry := self.take(box)) is not None:
                box.leave(waiter)
                waiter.give(entry)

    def _count_ended(self, box: Mailbox, number: int) -> None:
        if number:
            self._counters.count("expired before being read", box.name, number)
