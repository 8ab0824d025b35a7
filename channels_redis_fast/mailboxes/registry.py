"""The channels of this process: bounded, living as long as their names."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from ..wire.codec import Message
from .dropped import DropCounters
from .lifetimes import Lifetimes
from .mailbox import ChannelName, Mailbox, MailboxGroup, Snapshot
from .waiters import NO_LOOP, Entry, TaskWaiter, ThreadWaiter, Waiter, call, fail, wake

# So many channels end at a time: who waits for the lock, or in the loop, comes between.
_PORTION = 500


class LocalChannels:
    """The channels of this process. Messages not read for `expiry` seconds go.

    `capacity_of` gives a channel's bound (messages); `inbox_of` the name of its
    inbox. `on_wait` is called when somebody waits in a loop that doesn't read; None:
    messages come by themselves. `on_end` is called with the name of a channel that
    ended. All methods may be called from any thread.
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
        self._counters = counters
        self._on_wait = on_wait
        self._on_end = on_end
        # Reentrant: a log handler may call the layer from within.
        self._lock = threading.RLock()
        self._boxes: dict[str, Mailbox] = {}
        self._inboxes: dict[str, MailboxGroup] = {}
        self._lifetimes = Lifetimes(expiry)
        self._swept = time.monotonic()
        self.is_behind = False  # more channels are over than `sweep` ends at a time
        # Who waited in tasks that were collected as garbage, which may be anywhere, so
        # without the lock.
        self._abandoned: deque[TaskWaiter] = deque()

    def __contains__(self, name: str) -> bool:
        return name in self._boxes

    def __len__(self) -> int:
        return len(self._boxes)

    def new(self, name: str) -> ChannelName:
        """A channel that lives as long as the name object that is returned."""
        with self._lock:
            return self._lifetimes.hold(self._boxes.get(name) or self._open(name))

    def ensure_owner(
        self, inbox: MailboxGroup, make: Callable[[MailboxGroup], Any]
    ) -> Any:
        """Who reads for it; `make` makes one if nobody does, or one stands still."""
        with self._lock:
            if inbox.reader is None or inbox.reader.stands_still():
                inbox.reader = make(inbox)
            return inbox.reader

    def release(self, inbox: MailboxGroup, reader: Any) -> None:
        """Notes that `reader` doesn't read for it any more."""
        with self._lock:
            if inbox.reader is not reader:
                return  # somebody took over from it
            inbox.reader, inbox.stalled = None, True
            for waiter in self._waiters(inbox):
                if isinstance(waiter, ThreadWaiter):
                    waiter.nudge()  # it reads, or has somebody read
            if not inbox.boxes and self._inboxes.get(inbox.name) is inbox:
                del self._inboxes[inbox.name]

    def room(self, inbox: MailboxGroup, reader: Any) -> int:
        """How many messages may come by `reader`; the inbox stalls when none may."""
        with self._lock:
            if inbox.reader is not reader:
                return 0  # its loop stood still, and another one took over
            room = inbox.room()
            inbox.stalled = room == 0
            return room

    def snapshot(self) -> Snapshot:
        """What waits to be received, by channel."""
        with self._lock:
            boxes = [box for box in self._boxes.values() if box.messages]
            return Snapshot({box.name: tuple(box.messages or ()) for box in boxes})

    def names(self) -> list[str]:
        """The names of all channels."""
        with self._lock:
            return list(self._boxes)

    def inboxes(self) -> list[MailboxGroup]:
        """All inboxes."""
        with self._lock:
            return list(self._inboxes.values())

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
            entry = self._take(box) if box.messages else None
            if entry is None:
                # A room for it first: what follows may already fill it.
                waiter = self._waiter(box, loop or asyncio.get_running_loop())
                self._enter(box, waiter)
            is_fed = box.inbox.is_fed_in(None if entry else waiter.loop)
        if self._on_wait is not None and not is_fed:
            try:
                self._on_wait(box.inbox)
            except BaseException:
                if entry is None:
                    waiter.leave()
                else:
                    with self._lock:
                        self._put_back(box, entry)
                raise
        return waiter if entry is None else entry

    def begin_in_thread(self, name: str, waiter: ThreadWaiter) -> MailboxGroup:
        """As `begin`, for a thread, which has to see to it that the inbox is fed."""
        with self._lock:
            box = waiter.box = self._boxes.get(name) or self._open(str(name))
            if box.messages and (entry := self._take(box)):
                waiter.give(entry)
            else:
                self._enter(box, waiter)
            return box.inbox

    def withdraw(self, waiter: Waiter) -> None:
        """Ends a wait; a message that was given goes back to where it was."""
        with self._lock:
            box = waiter.box
            if box.waiter is waiter:
                box.waiter = None
            if self.forget(waiter):
                return
            if waiter.error is None and (entry := waiter.give_back()):
                self._put_back(box, entry)

    def withdraw_later(self, waiter: TaskWaiter) -> None:
        """As `withdraw`, at the next `sweep`: this may interrupt the work of others."""
        self._abandoned.append(waiter)

    def forget(self, waiter: Waiter) -> bool:
        """Ends a wait to which no message is on its way; whether there was one."""
        with self._lock:
            if ended := self._forget(waiter):
                self._invite(waiter.box)  # another one, if this one was called
            return ended

    def put(
        self,
        inbox: MailboxGroup | None,
        names: Collection[str],
        message: Message,
        copy: Callable[[], Message] | None,
        here: asyncio.AbstractEventLoop | None = None,
    ) -> int:
        """Gives a channel the message, or several a `copy` of it each.

        Channels of other inboxes count as none, unless `inbox` is None. `here` is the
        running loop, whose tasks go on together. Returns how many names were no
        channels.
        """
        together: dict[Any, Any] | None = None if copy is None else {}
        entry = time.monotonic() + self._expiry, message, copy, together
        boxes, unknown = self._boxes, 0
        woken: list[TaskWaiter] = []
        with self._lock:
            for name in names:
                box = boxes.get(name)
                if box is None or (box.inbox is not inbox and inbox is not None):
                    unknown += 1
                elif box.waiters and box.waiters[0].loop is here and not box.called:
                    waiter: Any = box.waiters.pop(0)
                    waiter.entry = entry
                    if not woken and here is not None:
                        here.call_soon(wake, woken)  # whatever comes of the others
                    woken.append(waiter)
                    box.inbox.waiting -= 1
                elif not box.waiters and len(box.messages or ()) < box.capacity:
                    # As `_put` would, for a burst to many.
                    (box.messages or box.queue()).append(entry)
                else:
                    self._put(box, entry)
        return unknown

    def put_first(self, name: str, message: Message) -> None:
        """Puts a message back that was taken, and reached nobody."""
        with self._lock:
            if (box := self._boxes.get(name)) is not None:
                box.put_first(message, time.monotonic() + self._expiry)
                self._invite(box)

    def refuse(self, inbox: MailboxGroup, error: Callable[[], Exception]) -> None:
        """Raises an error in everybody who waits on an inbox for no message yet."""
        with self._lock:
            for waiter in self._waiters(inbox):
                self._forget(waiter)
                call(waiter, fail, waiter, error())

    def waiting_loops(self, inbox: MailboxGroup) -> set[asyncio.AbstractEventLoop]:
        """The loops in which somebody waits on an inbox."""
        with self._lock:
            return {waiter.loop for waiter in self._waiters(inbox)} - {NO_LOOP}

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

    def sweep(self) -> list[MailboxGroup]:
        """Drops what is too old; returns inboxes that are read for no channel.

        Those stay while somebody reads for them: a channel made meanwhile shares that.
        """
        now = time.monotonic()
        with self._lock:
            self._swept = now
            while self._abandoned:
                self._abandoned.popleft().leave()
            for inbox in self._inboxes.values():
                self._drop_expired(inbox, now)
                for box in list(inbox.filled):
                    self._invite(box)  # if a loop that was called stands still
            self._lifetimes.review(now)
        self.end_some()
        with self._lock:
            empty = [i for i in self._inboxes.values() if not i.boxes]
            for inbox in empty:
                if inbox.reader is None:
                    del self._inboxes[inbox.name]
        return [inbox for inbox in empty if inbox.reader is not None]

    def end_some(self) -> None:
        """Ends channels whose time is over, a portion of them: see `is_behind`."""
        now = time.monotonic()
        with self._lock:
            ended = self._lifetimes.due(now, _PORTION)
            for box in ended:
                del self._boxes[box.name]
                box.inbox.boxes -= 1
                box.inbox.filled.discard(box)
            self.is_behind = self._lifetimes.are_more(now)
        for box in ended:
            self._on_end(box.name)

    def is_swept(self, seconds: float) -> bool:
        """Whether `sweep` was called in the last `seconds`, and left nothing over."""
        return not self.is_behind and time.monotonic() - self._swept < seconds

    # Steps; the lock is held

    def _open(self, name: str) -> Mailbox:
        inbox_name = self._inbox_of(name)
        if (inbox := self._inboxes.get(inbox_name)) is None:
            inbox = self._inboxes[inbox_name] = MailboxGroup(inbox_name)
        capacity = max(1, self._capacity_of(name))
        box = self._boxes[name] = Mailbox(name, capacity, inbox)
        self._lifetimes.begin(box)
        inbox.boxes += 1
        inbox.capacity = capacity
        return box

    def _take(self, box: Mailbox) -> Entry | None:
        if box.handle is None:
            self._lifetimes.note_use(box)
        now = time.monotonic()
        if box.messages and box.messages[0][0] <= now:
            self._count_ended(box, box.drop_ended(now))
        return box.take()

    def _put(self, box: Mailbox, entry: Entry) -> None:
        """Keeps a message, and calls who waits for it."""
        is_one_lost = box.append(entry)
        self._invite(box)
        if is_one_lost:
            self._counters.count("dropped, the consumer doesn't read", box.name)

    def _put_back(self, box: Mailbox, entry: Entry) -> None:
        """Puts a message where it was: before all that came later."""
        if self._boxes.get(box.name) is not box:
            self._count_ended(box, 1)
            return
        box.put_back(entry)
        self._invite(box)

    def _invite(self, box: Mailbox) -> None:
        """Calls one more of those who wait, if there is a message to come for.

        It stays in the box meanwhile: a loop that stands still keeps it from nobody.
        """
        while box.messages and (waiter := box.next_waiter()) is not None:
            waiter.is_called = True
            box.called += 1
            box.inbox.waiting -= 1
            if call(waiter, self._fetch, waiter):
                return
            self._forget(waiter)  # its loop is closed

    def _fetch(self, waiter: Waiter) -> None:
        """In the waiter's loop: it was called, and others may have come before."""
        with self._lock:
            if not waiter.is_called:
                return
            self._uncall(waiter)
            if (entry := self._take(waiter.box)) is not None:
                self._forget(waiter)
                waiter.give(entry)

    def _waiter(self, box: Mailbox, loop: asyncio.AbstractEventLoop) -> TaskWaiter:
        """For one more wait of a task of a loop."""
        waiter = box.waiter
        if waiter is None or waiter.is_used or waiter.loop is not loop:
            box.waiter = waiter = TaskWaiter(box, loop, self)
        waiter.is_used = True
        return waiter

    def _enter(self, box: Mailbox, waiter: Waiter) -> None:
        if box.waiters is None:
            box.waiters = [waiter]
        else:
            box.waiters.append(waiter)
        box.inbox.waiting += 1
        if box.handle is None:
            self._lifetimes.note_use(box)

    def _waiters(self, inbox: MailboxGroup) -> list[Any]:
        if not inbox.waiting:
            return []
        boxes = [box for box in self._boxes.values() if box.inbox is inbox]
        waiters = [waiter for box in boxes for waiter in box.waiters or ()]
        return [waiter for waiter in waiters if not waiter.is_called]

    def _forget(self, waiter: Waiter) -> bool:
        """Ends a wait; whether it had not ended."""
        box = waiter.box
        if not box.waiters or waiter not in box.waiters:
            return False
        self._uncall(waiter)
        box.waiters.remove(waiter)
        box.inbox.waiting -= 1
        return True

    def _uncall(self, waiter: Waiter) -> None:
        if waiter.is_called:
            waiter.is_called = False
            waiter.box.called -= 1
            waiter.box.inbox.waiting += 1

    def _drop_expired(self, inbox: MailboxGroup, now: float) -> None:
        for box in list(inbox.filled):
            self._count_ended(box, box.drop_ended(now))

    def _count_ended(self, box: Mailbox, number: int) -> None:
        if number:
            self._counters.count("expired before being read", box.name, number)
