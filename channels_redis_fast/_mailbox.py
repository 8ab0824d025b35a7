"""A local queue, what feeds it, and the name that keeps it alive."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from typing import Any

from ._codec import Message

# A message and when it ends (seconds, monotonic).
Entry = tuple[float, Message]
Waiter = asyncio.Future[Entry]


class ThreadWaiter:
    """A thread that waits, among the futures of event loops.

    No more than a lock to wait on: a signal handler may come at any time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._entry: Entry | None = None
        self._error: BaseException | None = None

    def wait(self, seconds: float | None) -> None:
        """Returns when something happened, or the time is over."""
        self._lock.acquire(timeout=-1 if seconds is None else max(0.0, seconds))

    def nudge(self) -> None:
        """Ends a wait, for nothing."""
        with contextlib.suppress(RuntimeError):  # it was ended already
            self._lock.release()

    # What mailboxes use of a future

    def get_loop(self) -> NoLoop:
        """Calls what it is given at once."""
        return NO_LOOP

    def done(self) -> bool:
        """Whether there is a message or an error."""
        return self._entry is not None or self._error is not None

    def cancelled(self) -> bool:
        """Never: who waits withdraws himself."""
        return False

    def exception(self) -> BaseException | None:
        """The error."""
        return self._error

    def result(self) -> Any:
        """The message and its end; raises the error."""
        if self._error is not None:
            raise self._error
        return self._entry

    def set_result(self, entry: Entry) -> None:
        """Gives the message."""
        self._entry = entry
        self.nudge()

    def set_exception(self, error: BaseException) -> None:
        """Gives the error."""
        self._error = error
        self.nudge()


class NoLoop:
    """Where threads wait and feed."""

    def call_soon_threadsafe(self, function: Any, *args: Any) -> None:
        """Calls it now."""
        function(*args)

    def is_closed(self) -> bool:
        """Never."""
        return False


NO_LOOP = NoLoop()


class ChannelName(str):
    """A name that `new_channel` returned; its channel lives while this object does."""

    __slots__ = ("__weakref__",)


class Handle(weakref.ref[ChannelName]):
    """Knows which mailbox the name that went belonged to."""

    __slots__ = ("box",)
    box: Mailbox


class Inbox:
    """The mailboxes that one stream of messages feeds: those of a process key."""

    __slots__ = ("boxes", "capacity", "filled", "name", "reader", "stalled", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.boxes = 0
        self.capacity = 1
        self.filled: set[Mailbox] = set()
        self.waiting = 0  # receivers without a message
        self.reader: Any = None  # who feeds it, while somebody does
        # Nobody reads for it: no feeder yet, or one that stopped for want of room.
        self.stalled = True

    def room(self) -> int:
        """How many messages may come now (messages); 0 when they should wait in Redis.

        While somebody waits, messages keep coming whatever the state of neighbours
        that don't read: theirs drop. Otherwise all must fit.
        """
        room = self.capacity
        for box in self.filled:
            free = box.capacity - len(box.messages or ())
            if free > 0:
                room = min(room, free)
            elif not self.waiting:
                return 0
        return room


class Mailbox:
    """What waits for one channel, and who waits on it: never both.

    A message that was handed to a waiter comes back when the waiter is cancelled.
    """

    __slots__ = ("capacity", "handle", "inbox", "messages", "name", "waiters")

    def __init__(self, name: str, capacity: int, inbox: Inbox) -> None:
        self.name = name
        self.capacity = capacity
        self.inbox = inbox
        self.handle: Handle | None = None
        self.messages: deque[Entry] | None = None
        self.waiters: list[Waiter] | None = None
