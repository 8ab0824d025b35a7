"""A local queue, who reads for it, and the name that keeps it alive."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from ..wire.codec import Message
from .waiters import Entry, TaskWaiter, Waiter, opened


class ChannelName(str):
    """A name that `new_channel` returned; its channel lives while this object does."""

    __slots__ = ("__weakref__",)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as a plain str, which can be read where this package isn't."""
        return str, (str(self),)


class Handle(weakref.ref[ChannelName]):
    """Knows which mailbox the name that went belonged to."""

    __slots__ = ("box",)
    box: Mailbox


# A message of a history ends this much later (seconds) than it came, which is never:
# who follows the group gets it, or is told.
UNENDING = 1e9


class MailboxGroup:
    """The mailboxes under one Redis key, that of a process."""

    __slots__ = ("boxes", "capacity", "filled", "name", "reader", "stalled", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.boxes = 0
        self.capacity = 1
        self.filled: set[Mailbox] = set()
        self.waiting = 0  # receivers without a message
        self.reader: Any = None  # its owner: who reads the key, while somebody does
        # Nobody reads for it: no owner yet, or one that stopped for want of room.
        self.stalled = True

    def is_fed_in(self, loop: Any) -> bool:
        """Whether somebody reads for it in this loop; None: in any."""
        return not self.stalled and loop in (None, self.reader.loop)

    def room(self) -> int:
        """How many messages may come now (messages); 0 when they should wait in Redis.

        While somebody waits, messages keep coming whatever the state of neighbours
        that don't read: theirs drop. Otherwise all must fit.
        """
        room = self.capacity
        for box in self.filled:
            free = box.room - len(box.messages or ())
            if free > 0:
                room = min(room, free)
            elif not self.waiting:
                return 0
        return room


class Mailbox:
    """What waits for one channel, and who waits on it.

    Both only until those who wait in other loops have come for it: they were called,
    and the messages are here so long, for anybody. What was handed to a waiter comes
    back when the waiter is cancelled.
    """

    __slots__ = (
        "called",
        "capacity",
        "handle",
        "inbox",
        "messages",
        "name",
        "waiter",
        "waiters",
    )

    def __init__(self, name: str, capacity: int, inbox: MailboxGroup) -> None:
        self.name = name
        self.capacity = capacity
        self.inbox = inbox
        self.handle: Handle | None = None
        self.messages: deque[Entry] | None = None
        self.waiter: TaskWaiter | None = None  # used again from wait to wait
        self.waiters: list[Waiter] | None = None
        self.called = 0  # of those who wait: they have a message to come for

    @property
    def room(self) -> int:
        """How many messages it holds; those that somebody comes for count extra."""
        return self.capacity + self.called

    def append(self, entry: Entry) -> bool:
        """Keeps a message; whether one had to go for it: the first that ends."""
        messages = self.queue()
        messages.append(entry)
        if len(messages) <= self.room:
            return False
        ending = (at for at, one in enumerate(messages) if one[0] < UNENDING)
        del messages[next(ending, -1)]
        return True

    def put_back(self, entry: Entry) -> None:
        """Keeps a message before all that came later, whatever the capacity."""
        messages = self.queue()
        later = (at for at, one in enumerate(messages) if one[0] > entry[0])
        messages.insert(next(later, len(messages)), entry)

    def put_first(self, message: Message, ends: float) -> None:
        """Keeps a message before all others; it ends with the next, `ends` at most."""
        if self.messages:
            ends = min(ends, self.messages[0][0])
        self.queue().appendleft((ends, message, None, None))

    def take(self) -> Entry | None:
        """The first message."""
        messages = self.messages
        if not messages:
            return None
        found = messages.popleft()
        if not messages:
            self.clear()
        return found

    def drop_ended(self, now: float) -> int:
        """Drops the messages that ended; how many."""
        messages, ended = self.messages, 0
        while messages and messages[0][0] <= now:
            messages.popleft()
            ended += 1
        if not messages:
            self.clear()
        return ended

    def clear(self) -> None:
        """Drops all messages."""
        self.messages = None
        self.inbox.filled.discard(self)

    def next_waiter(self) -> Waiter | None:
        """The first who waits in a loop that runs and wasn't called, else in another.

        Who waits in a loop that stands still comes when it goes on.
        """
        waiting = [waiter for waiter in self.waiters or () if not waiter.is_called]
        running = (waiter for waiter in waiting if waiter.loop.is_running())
        return next(running, waiting[0] if waiting else None)

    def enter(self, waiter: Waiter) -> None:
        """Adds one who waits, behind all others."""
        if self.waiters is None:
            self.waiters = [waiter]
        else:
            self.waiters.append(waiter)
        self.inbox.waiting += 1

    def leave(self, waiter: Waiter) -> bool:
        """Takes out one who waits; whether it was there."""
        if not self.waiters or waiter not in self.waiters:
            return False
        self.uncall(waiter)
        self.waiters.remove(waiter)
        self.inbox.waiting -= 1
        return True

    def uncall(self, waiter: Waiter) -> None:
        """Has one who was called wait as before."""
        if waiter.is_called:
            waiter.is_called = False
            self.called -= 1
            self.inbox.waiting += 1

    def queue(self) -> deque[Entry]:
        """Its messages; they may be changed."""
        if self.messages is None:
            self.messages = deque()
            self.inbox.filled.add(self)
        return self.messages


class Snapshot(Mapping[str, tuple[Message, ...]]):
    """The messages that waited at one moment, by channel; copied when looked at."""

    def __init__(self, entries: dict[str, tuple[Entry, ...]]) -> None:
        self._entries = entries

    def __getitem__(self, name: str) -> tuple[Message, ...]:
        return tuple(map(opened, self._entries[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
