"""Who reads a process's key: at most one event loop, or one thread that waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from itertools import chain
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from .mailbox import Mailbox, MailboxGroup
from .waiters import NO_LOOP, ThreadWaiter, call, fail


class Owner(Protocol):
    """Who reads a key, while it does: in one event loop, or in a thread (`NO_LOOP`)."""

    @property
    def loop(self) -> Any:
        """Where it reads."""

    def resume(self) -> None:
        """Reads if there is room; raises `RuntimeError` when its loop is closed."""

    def retire(self) -> None:
        """Ends if no channel is left."""

    def stands_still(self) -> bool:
        """Whether somebody else is to read for it: its loop doesn't run."""


T = TypeVar("T", bound=Owner)

_MESSAGES = attrgetter("messages")


class Ownership:
    """The keys of a layer's mailboxes, and who reads each of them.

    A key has one owner at a time. Another one takes its place when it stands still or
    releases the key: whoever asks first, in a loop or a thread where somebody waits.
    """

    def __init__(self, lock: threading.RLock, boxes: dict[str, Mailbox]) -> None:
        self._lock = lock
        self._boxes = boxes
        self._inboxes: dict[str, MailboxGroup] = {}

    def inboxes(self) -> list[MailboxGroup]:
        """The mailboxes under each key."""
        with self._lock:
            return list(self._inboxes.values())

    def inbox(self, name: str) -> MailboxGroup:
        """Those under the key of that name; they may be new, and read by nobody."""
        with self._lock:
            inbox = self._inboxes.get(name)
            if inbox is None:
                inbox = self._inboxes[name] = MailboxGroup(name)
            return inbox

    def ensure(self, inbox: MailboxGroup, make: Callable[[MailboxGroup], T]) -> Any:
        """The owner; `make` makes one if there is none, or one that stands still."""
        with self._lock:
            if not _is_read(inbox):
                inbox.reader = make(inbox)
            return inbox.reader

    def release(self, inbox: MailboxGroup, owner: Owner) -> None:
        """Notes that `owner` doesn't read any more."""
        with self._lock:
            if inbox.reader is not owner:
                return  # somebody took over from it
            inbox.reader, inbox.stalled = None, True
            for waiter in self._waiters(inbox):
                if isinstance(waiter, ThreadWaiter):
                    waiter.nudge()  # it reads, or has somebody read
            self._forget_empty(inbox)

    def room(self, inbox: MailboxGroup, owner: Owner) -> int:
        """How many messages may come by `owner`; the inbox stalls when none may."""
        with self._lock:
            if inbox.reader is not owner:
                return 0  # its loop stood still, and another one took over
            room = inbox.room()
            inbox.stalled = room == 0
            return room

    def orphans(self) -> list[MailboxGroup]:
        """Those that nobody reads; an owner whose loop was closed reads no more."""
        with self._lock:
            for inbox in self.inboxes():
                if inbox.reader is not None and inbox.reader.loop.is_closed():
                    self.release(inbox, inbox.reader)
            return [one for one in self._inboxes.values() if not _is_read(one)]

    def needless(self) -> list[Owner]:
        """The owners that read for no channel: one made meanwhile keeps them."""
        with self._lock:
            inboxes = self._inboxes.values()
            return [one.reader for one in inboxes if not one.boxes and _is_read(one)]

    def forget_needless(self) -> None:
        """Forgets those without a channel that nobody reads."""
        with self._lock:
            for inbox in self.inboxes():
                if inbox.reader is None:
                    self._forget_empty(inbox)

    def waiting(self) -> int:
        """How many messages wait to be received."""
        with self._lock:
            filled = (one.filled for one in self._inboxes.values())
            # Tens of thousands may be: not a line of Python for each.
            return sum(map(len, map(_MESSAGES, chain.from_iterable(filled))))

    def fills(self) -> dict[str, float]:
        """How full each mailbox is that has messages, as a part of its capacity."""
        with self._lock:
            filled = [box for one in self._inboxes.values() for box in one.filled]
            return {box.name: len(box.messages or ()) / box.capacity for box in filled}

    # Who waits

    def waiting_loops(self, inbox: MailboxGroup) -> set[asyncio.AbstractEventLoop]:
        """The loops in which somebody waits for messages of a key."""
        with self._lock:
            return {waiter.loop for waiter in self._waiters(inbox)} - {NO_LOOP}

    def refuse(self, inbox: MailboxGroup, error: Callable[[], Exception]) -> None:
        """Raises an error in everybody who waits on an inbox for no message yet."""
        with self._lock:
            for waiter in self._waiters(inbox):
                waiter.box.leave(waiter)
                call(waiter, fail, waiter, error())

    def _waiters(self, inbox: MailboxGroup) -> list[Any]:
        if not inbox.waiting:
            return []
        boxes = [box for box in self._boxes.values() if box.inbox is inbox]
        waiters = [waiter for box in boxes for waiter in box.waiters or ()]
        return [waiter for waiter in waiters if not waiter.is_called]

    def _forget_empty(self, inbox: MailboxGroup) -> None:
        if not inbox.boxes and self._inboxes.get(inbox.name) is inbox:
            del self._inboxes[inbox.name]


def _is_read(inbox: MailboxGroup) -> bool:
    return inbox.reader is not None and not inbox.reader.stands_still()
