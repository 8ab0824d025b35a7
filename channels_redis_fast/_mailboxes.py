"""The channels of this process: bounded, living as long as their names."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ._codec import Message
from ._counters import Counters
from ._mailbox import (
    NO_LOOP,
    ChannelName,
    Entry,
    Handle,
    Inbox,
    Mailbox,
    ThreadWaiter,
    Waiter,
)


class Mailboxes:
    """The channels of this process. Messages not read for `expiry` seconds go.

    `capacity_of` gives a channel's bound (messages); `inbox_of` the name of its
    inbox. `on_wait` is called when somebody asks for a message of a stalled inbox,
    `on_end` with a channel's name after the channel ended. All methods may be called
    from any thread.
    """

    def __init__(
        self,
        *,
        expiry: float,
        capacity_of: Callable[[str], int],
        inbox_of: Callable[[str], str],
        counters: Counters,
        on_wait: Callable[[Inbox], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._expiry = expiry
        self._capacity_of = capacity_of
        self._inbox_of = inbox_of
        self._counters = counters
        self._on_wait = on_wait
        self._on_end = on_end
        # Reentrant: a log handler may call the layer from within.
        self._lock = threading.RLock()
        self._boxes: dict[str, Mailbox] = {}
        self._inboxes: dict[str, Inbox] = {}
        self._unheld: set[Mailbox] = set()  # boxes whose names nobody holds
        # Those of them on which nobody waits, with the time of their end, oldest first.
        self._ending: dict[Mailbox, float] = {}
        self._swept = time.monotonic()
        # Filled by weakref callbacks, which may run anywhere, so without the lock.
        self._released: deque[Mailbox] = deque()

    def __contains__(self, name: str) -> bool:
        return name in self._boxes

    def __len__(self) -> int:
        return len(self._boxes)

    def new(self, name: str) -> ChannelName:
        """A channel that lives as long as the name object that is returned."""
        held = ChannelName(name)
        with self._lock:
            box = self._open(name)
            self._unheld.discard(box)
            box.handle = Handle(held, self._release)
            box.handle.box = box
        return held

    def feed(self, inbox: Inbox, make: Callable[[Inbox], Any]) -> Any:
        """Who feeds an inbox; `make` makes one if nobody does."""
        with self._lock:
            if inbox.reader is None:
                inbox.reader = make(inbox)
            return inbox.reader

    def unfeed(self, inbox: Inbox) -> None:
        """Notes that nobody feeds an inbox any more."""
        with self._lock:
            inbox.reader, inbox.stalled = None, True
            for waiter in self._waiters(inbox):
                if isinstance(waiter, ThreadWaiter):
                    waiter.nudge()  # it feeds the inbox, or has it fed
            if not inbox.boxes and self._inboxes.get(inbox.name) is inbox:
                del self._inboxes[inbox.name]

    def snapshot(self) -> dict[str, tuple[Message, ...]]:
        """What waits to be received, by channel."""
        with self._lock:
            boxes = [box for box in self._boxes.values() if box.messages]
            return {b.name: tuple(m for _, m in b.messages or ()) for b in boxes}

    def names(self) -> list[str]:
        """The names of all channels."""
        with self._lock:
            return list(self._boxes)

    def inboxes(self) -> list[Inbox]:
        """All inboxes."""
        with self._lock:
            return list(self._inboxes.values())

    async def receive(self, name: str) -> Message:
        """The channel's next message, waiting for it; cancelling loses nothing."""
        found = self.begin(name)
        if isinstance(found, dict):
            return found
        try:
            return (await found)[1]
        except BaseException:
            self.withdraw(name, found)
            raise

    def begin(self, name: str) -> Message | Waiter:
        """A waiting message, or a future for the next with its time.

        Who gets a future and doesn't take its message has to call `withdraw`.
        """
        with self._lock:
            box = self._boxes.get(name) or self._open(str(name))
            inbox = box.inbox
            message = self._take(box) if box.messages else None
            if message is None:
                # A room for it first: what follows may already fill it.
                waiter = self._enter(box)
        if inbox.stalled:
            try:
                self._on_wait(inbox)
            except BaseException:
                if message is None:
                    self.withdraw(name, waiter)
                raise
        return waiter if message is None else message

    def begin_in_thread(
        self, name: str, waiter: ThreadWaiter
    ) -> tuple[Inbox, Message | None]:
        """As `begin`, for a thread, which has to see to it that the inbox is fed."""
        with self._lock:
            box = self._boxes.get(name) or self._open(str(name))
            message = self._take(box) if box.messages else None
            if message is None:
                self._enter(box, waiter)
            return box.inbox, message

    def withdraw(self, name: str, waiter: Waiter | ThreadWaiter) -> None:
        """Ends a wait without a message; one that was handed over stays."""
        with self._lock:
            box = self._boxes[name]
            if self._forget(box, waiter) or not waiter.done() or waiter.cancelled():
                return
            if waiter.exception() is None:
                self._put_back(box, waiter.result())

    def put_all(
        self,
        inbox: Inbox | None,
        names: Iterable[str],
        message: Message,
        copy: Callable[[], Message],
    ) -> int:
        """Gives each channel the message or a copy; how many names were no channels.

        Channels of other inboxes count as none, unless `inbox` is None.
        """
        deadline = time.monotonic() + self._expiry
        here = asyncio._get_running_loop()
        boxes, unknown = self._boxes, 0
        given: Message | None = message
        with self._lock:
            for name in names:
                box = boxes.get(name)
                if box is None or (box.inbox is not inbox and inbox is not None):
                    unknown += 1
                    continue
                if given is None:
                    given = copy()
                waiters = box.waiters
                if waiters and waiters[0].get_loop() is here:
                    # The usual case, without the calls.
                    box.inbox.waiting -= 1
                    waiter = waiters.pop(0)
                    if not waiter.done():
                        waiter.set_result((deadline, given))
                        given = None
                        continue
                self._put(box, (deadline, given))
                given = None
        return unknown

    def refuse(self, inbox: Inbox, error: Callable[[], Exception]) -> None:
        """Raises an error in everybody who waits on an inbox for no message yet."""
        with self._lock:
            for waiter in self._waiters(inbox):
                _call(waiter, _fail, waiter, error())

    def waiting_loops(self, inbox: Inbox) -> set[asyncio.AbstractEventLoop]:
        """The event loops in which somebody waits on an inbox."""
        with self._lock:
            loops = {waiter.get_loop() for waiter in self._waiters(inbox)}
            return loops - {NO_LOOP}

    def abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Forgets who waited in a loop that was closed under them."""
        with self._lock:
            for box in list(self._boxes.values()):
                for waiter in list(box.waiters or ()):
                    if waiter.get_loop() is loop:
                        self._forget(box, waiter)

    def clear(self) -> None:
        """Drops all messages; channels and who waits on them stay."""
        with self._lock:
            for box in self._boxes.values():
                box.messages = None
                box.inbox.filled.discard(box)

    def sweep(self) -> list[Inbox]:
        """Drops what is too old; returns inboxes that are fed for no channel.

        Those stay until they are not fed: a channel made meanwhile shares the feeder.
        """
        now = time.monotonic()
        with self._lock:
            self._swept = now
            for inbox in self._inboxes.values():
                self._drop_expired(inbox, now)
            self._begin_ends(now)
            ended = self._end_due(now)
            empty = [i for i in self._inboxes.values() if not i.boxes]
            for inbox in empty:
                if inbox.reader is None:
                    del self._inboxes[inbox.name]
        for name in ended:
            self._on_end(name)
        return [inbox for inbox in empty if inbox.reader is not None]

    def is_swept(self, seconds: float) -> bool:
        """Whether `sweep` was called in the last `seconds`."""
        return time.monotonic() - self._swept < seconds

    # Steps; the lock is held

    def _open(self, name: str) -> Mailbox:
        inbox_name = self._inbox_of(name)
        inbox = self._inboxes.get(inbox_name)
        if inbox is None:
            inbox = self._inboxes[inbox_name] = Inbox(inbox_name)
        capacity = max(1, self._capacity_of(name))
        box = self._boxes[name] = Mailbox(name, capacity, inbox)
        self._unheld.add(box)
        inbox.boxes += 1
        inbox.capacity = capacity
        return box

    def _take(self, box: Mailbox) -> Message | None:
        messages = box.messages
        found = None
        while messages and found is None:
            deadline, message = messages.popleft()
            if deadline > time.monotonic():
                found = message
            else:
                self._counters.count("expired before being read", box.name)
        if not messages:
            box.messages = None
            box.inbox.filled.discard(box)
        return found

    def _put(self, box: Mailbox, entry: Entry) -> None:
        """Hands a message to the first who waits, or keeps it."""
        while box.waiters:
            box.inbox.waiting -= 1
            waiter = box.waiters.pop(0)
            if not waiter.done() and _call(waiter, self._give, box, waiter, entry):
                return
        messages = box.messages
        if messages is None:
            messages = box.messages = deque()
            box.inbox.filled.add(box)
        elif len(messages) >= box.capacity:
            messages.popleft()
            self._counters.count("dropped, the consumer doesn't read", box.name)
        messages.append(entry)

    def _give(self, box: Mailbox, waiter: Waiter, entry: Entry) -> None:
        """In the waiter's loop."""
        if not waiter.done():
            waiter.set_result(entry)
        else:  # cancelled before it was told
            with self._lock:
                self._put_back(box, entry)

    def _put_back(self, box: Mailbox, entry: Entry) -> None:
        """Puts a message where it was: before all that came later."""
        if self._boxes.get(box.name) is not box:
            self._counters.count("expired before being read", box.name)
            return
        later = [e for e in box.messages or () if e[0] > entry[0]]
        earlier = [e for e in box.messages or () if e[0] <= entry[0]]
        box.messages = None
        box.inbox.filled.discard(box)
        for kept in (*earlier, entry, *later):
            self._put(box, kept)

    def _enter(self, box: Mailbox, in_thread: ThreadWaiter | None = None) -> Any:
        waiter: Any = in_thread or asyncio.Future(loop=asyncio._get_running_loop())
        if box.waiters is None:
            box.waiters = [waiter]
        else:
            box.waiters.append(waiter)
        box.inbox.waiting += 1
        if self._ending:
            self._ending.pop(box, None)
        return waiter

    def _waiters(self, inbox: Inbox) -> list[Any]:
        if not inbox.waiting:
            return []
        boxes = [box for box in self._boxes.values() if box.inbox is inbox]
        return [waiter for box in boxes for waiter in box.waiters or ()]

    def _forget(self, box: Mailbox, waiter: Any) -> bool:
        """Ends a wait; whether no message was handed over."""
        if not box.waiters or waiter not in box.waiters:
            return False
        box.waiters.remove(waiter)
        box.inbox.waiting -= 1
        return True

    def _release(self, handle: weakref.ref[ChannelName]) -> None:
        self._released.append(handle.box)  # type: ignore[attr-defined]

    def _begin_ends(self, now: float) -> None:
        """Notes which channels nobody holds and nobody waits on.

        Names may have been copied, so they stay for `expiry` more seconds.
        """
        while self._released:
            box = self._released.popleft()
            box.handle = None  # breaks the cycle
            if self._boxes.get(box.name) is box:
                self._unheld.add(box)
        for box in self._unheld:
            if not box.waiters:
                self._ending.setdefault(box, now + self._expiry)

    def _end_due(self, now: float) -> list[str]:
        ended = []
        while self._ending:
            box, deadline = next(iter(self._ending.items()))
            if deadline > now:
                break
            del self._ending[box], self._boxes[box.name]
            self._unheld.discard(box)
            box.inbox.boxes -= 1
            box.inbox.filled.discard(box)
            ended.append(box.name)
        return ended

    def _drop_expired(self, inbox: Inbox, now: float) -> None:
        for box in list(inbox.filled):
            while box.messages and box.messages[0][0] <= now:
                box.messages.popleft()
                self._counters.count("expired before being read", box.name)
            if not box.messages:
                box.messages = None
                inbox.filled.discard(box)


def _call(waiter: Waiter, function: Callable[..., None], *args: Any) -> bool:
    """Calls a function in a waiter's loop; False when that loop is closed."""
    loop = waiter.get_loop()
    try:
        if loop is asyncio._get_running_loop():
            function(*args)
        else:
            loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        return False
    return True


def _fail(waiter: Waiter, error: Exception) -> None:
    if not waiter.done():
        waiter.set_exception(error)
