"""A local queue, what feeds it, and the name that keeps it alive."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from ._codec import Message
from ._waiters import Entry, TaskWaiter, Waiter, opened


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

    __slots__ = ("capacity", "handle", "inbox", "messages", "name", "waiter", "waiters")

    def __init__(self, name: str, capacity: int, inbox: Inbox) -> None:
        self.name = name
        self.capacity = capacity
        self.inbox = inbox
        self.handle: Handle | None = None
        self.messages: deque[Entry] | None = None
        self.waiter: TaskWaiter | None = None  # used again from wait to wait
        self.waiters: list[Waiter] | None = None


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
