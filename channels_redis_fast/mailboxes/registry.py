"""The channels of this process: bounded, living as long as their names."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from ..wire.codec import Message
from .dispatcher import Dispatcher
from .dropped import DropCounters
from .lifetimes import Lifetimes
from .mailbox import ChannelName, Mailbox, MailboxGroup, Snapshot
from .offers import Offers
from .ownership import Ownership
from .waiters import (
    ChannelEnded,
    Entry,
    TaskWaiter,
    ThreadWaiter,
    Waiter,
    call,
    fail,
    wake,
)

# So many channels end at a time: who waits for the lock, or in the loop, comes between.
_PORTION = 500


class LocalChannels:
    """The channels of this process. Messages not read for `expiry` seconds go.

    `capacity_of` gives a channel's bound (messages); `inbox_of` the name of its
    inbox. `on_wait` is called when somebody waits in a loop that doesn't read; None:
    messages come by themselves. `on_end` is called with the name of a channel that
    ended. `owners` knows who reads; `offers` puts what must not get lost. All methods
    may be called from any thread.
    """

    def __init__(
        self,
        *,
        expiry: float,
        capacity_of: Callable[[str], int],
        inbox_of: Callable[[str], str],
        counters: DropCounters,
        on_wait: Callable[[MailboxGroup], None] | None,
        on_end: Callable[[str], None],
    ) -> None:
        self._expiry = expiry
        self._capacity_of = capacity_of
        self._inbox_of = inbox_of
        self._on_wait = on_wait
        self._on_end = on_end
        # Reentrant: a log handler may call the layer from within.
        self._lock = threading.RLock()
        self._boxes: dict[str, Mailbox] = {}
        self._lifetimes = Lifetimes(expiry)
        self._dispatcher = Dispatcher(self._lock, self._boxes, counters)
        self.owners = Ownership(self._lock, self._boxes)
        self.offers = Offers(self._lock, self._boxes, self.put)
        self._swept = time.monotonic()
        self.received = 0  # messages
        self.copies = 0  # of these, for further channels
        self.is_behind = False  # more channels are over than `sweep` ends at a time

    def __contains__(self, name: str) -> bool:
        return name in self._boxes

    def __len__(self) -> int:
        return len(self._boxes)

    def new(self, name: str) -> ChannelName:
        """A channel that lives as long as the name object that is returned."""
        with self._lock:
            return self._lifetimes.hold(self._boxes.get(name) or self._open(name))

    def snapshot(self) -> Snapshot:
        """What waits to be received, by channel."""
        with self._lock:
            boxes = [box for box in self._boxes.values() if box.messages]
            return Snapshot({box.name: tuple(box.messages or ()) for box in boxes})

    def names(self) -> list[str]:
        """The names of all channels."""
        with self._lock:
            return list(self._boxes)

    def open(self, name: str) -> None:
        """Makes a channel that lives while somebody waits on it, if there is none."""
        with self._lock:
            if name not in self._boxes:
                self._open(str(name))

    def begin(
        self, name: str, loop: asyncio.AbstractEventLoop | None = None
    ) -> Entry | TaskWaiter | None:
        """A message of a channel, or what to await at once for it; None: no channel.

        `loop` is the running loop, which costs a system call before Python 3.12.
        """
        with self._lock:
            if (box := self._boxes.get(name)) is None:
                return None
            if box.handle is None:
                self._lifetimes.note_use(box)
            found: Entry | TaskWaiter | None
            found = entry = self._dispatcher.take(box) if box.messages else None
            if found is None:
                # A room for it first: what follows may already fill it.
                loop = loop or asyncio.get_running_loop()
                found = self._dispatcher.enter(box, loop)
            on_wait = self._on_wait
            if on_wait is None or box.inbox.is_fed_in(None if entry else loop):
                return found
        try:
            on_wait(box.inbox)
        except BaseException:
            if isinstance(found, TaskWaiter):
                found.leave()
            elif entry is not None:
                with self._lock:
                    self._dispatcher.put_back(box, entry)
            raise
        return found

    def begin_in_thread(self, name: str, waiter: ThreadWaiter) -> MailboxGroup:
        """As `begin`, for a thread, which has to see to it that the inbox is fed."""
        with self._lock:
            box = waiter.box = self._boxes.get(name) or self._open(str(name))
            if box.handle is None:
                self._lifetimes.note_use(box)
            if box.messages and (entry := self._dispatcher.take(box)):
                waiter.give(entry)
            else:
                box.enter(waiter)
            return box.inbox

    def put(
        self,
        inbox: MailboxGroup | None,
        names: Collection[str],
        message: Message,
        copy: Callable[[], Message] | None,
        here: asyncio.AbstractEventLoop | None = None,
        expiry: float | None = None,
    ) -> int:
        """Gives a channel the message, or several a `copy` of it each.

        Channels of other inboxes count as none, unless `inbox` is None. `here` is the
        running loop, whose tasks go on together. `expiry` (seconds) is the layer's
        unless another is given. Returns how many names were no channels.
        """
        boxes, unknown = self._boxes, 0
        woken: list[TaskWaiter] = []
        together: dict[Any, Any] | None = None
        with self._lock:
            self.received += 1
            if copy is not None:
                self.copies += len(names) - 1
                together = {}
            entry = time.monotonic() + (expiry or self._expiry), message, copy, together
            try:
                for name in names:
                    box = boxes.get(name)
                    if box is None or (box.inbox is not inbox and inbox is not None):
                        unknown += 1
                        self.copies -= 1
                    elif (
                        (others := box.waiters)
                        and not box.called
                        and others[0].loop is here
                    ):
                        waiter: Any = others.pop(0)
                        waiter.entry = entry
                        woken.append(waiter)
                        box.inbox.waiting -= 1
                    elif not others and len(box.messages or ()) < box.capacity:
                        # As the dispatcher would, for a burst to many.
                        (box.messages or box.queue()).append(entry)
                    else:
                        self._dispatcher.keep(box, entry)
            finally:
                if woken and here is not None:
                    here.call_soon(wake, woken)
        return unknown

    def put_first(self, name: str, message: Message) -> None:
        """Puts a message back that was taken, and reached nobody."""
        with self._lock:
            if (box := self._boxes.get(name)) is not None:
                box.put_first(message, time.monotonic() + self._expiry)
                self._dispatcher.call_next(box)

    def withdraw(self, waiter: Waiter) -> None:
        """Ends a wait; a message that was given goes back to where it was."""
        self._dispatcher.withdraw(waiter)

    def abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Forgets who waits in a loop that is closed; what they got goes back."""
        with self._lock:
            for box in list(self._boxes.values()):
                for waiter in [*(box.waiters or ()), box.waiter]:
                    if isinstance(waiter, TaskWaiter) and waiter.loop is loop:
                        waiter.leave()

    def clear(self) -> None:
        """Drops all messages; channels and who waits on them stay."""
        with self._lock:
            for box in self._boxes.values():
                box.clear()

    def sweep(self) -> None:
        """Drops what is too old: messages, channels, and keys that nobody reads."""
        now = time.monotonic()
        with self._lock:
            self._swept = now
            self._dispatcher.withdraw_abandoned()
            for inbox in self.owners.inboxes():
                for box in list(inbox.filled):
                    self._dispatcher.drop_ended(box, now)
                    # Another one, if a loop that was called stands still.
                    self._dispatcher.call_next(box)
            self._lifetimes.review(now)
        self.end_some()
        self.owners.forget_needless()

    def end(self, name: str) -> None:
        """Ends a channel at once; `ChannelEnded` is raised in who waits on it."""
        with self._lock:
            box = self._boxes.get(name)
            if box is None:
                return
            self._remove(box)
            self._lifetimes.forget(box)
            for waiter in list(box.waiters or ()):
                box.leave(waiter)
                call(waiter, fail, waiter, ChannelEnded(name))
        self._on_end(name)

    def end_some(self) -> None:
        """Ends channels whose time is over, a portion of them: see `is_behind`."""
        now = time.monotonic()
        with self._lock:
            ended = self._lifetimes.due(now, _PORTION)
            for box in ended:
                self._remove(box)
            self.is_behind = self._lifetimes.are_more(now)
        for box in ended:
            self._on_end(box.name)

    def is_swept(self, seconds: float) -> bool:
        """Whether `sweep` was called in the last `seconds`, and left nothing over."""
        return not self.is_behind and time.monotonic() - self._swept < seconds

    # Steps; the lock is held

    def _remove(self, box: Mailbox) -> None:
        del self._boxes[box.name]
        box.inbox.boxes -= 1
        box.inbox.filled.discard(box)

    def _open(self, name: str) -> Mailbox:
        inbox = self.owners.inbox(self._inbox_of(name))
        capacity = max(1, self._capacity_of(name))
        box = self._boxes[name] = Mailbox(name, capacity, inbox)
        self._lifetimes.begin(box)
        inbox.boxes += 1
        inbox.capacity = capacity
        return box
