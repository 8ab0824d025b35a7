"""How long mailboxes live: as long as their names, and a while longer."""

from __future__ import annotations

import weakref
from collections import deque

from .._mailbox import ChannelName, Handle, Mailbox


class Lifetimes:
    """Which mailboxes nobody holds, and when they end.

    Names may have been copied, so a mailbox stays for `expiry` seconds after its name
    went or somebody last waited on it. But for what collects garbage, callers take
    turns.
    """

    def __init__(self, expiry: float) -> None:
        self._expiry = expiry
        self._unheld: set[Mailbox] = set()
        # Those of them on which nobody waits, with the time of their end, oldest first.
        self._ending: dict[Mailbox, float] = {}
        # Filled by weakref callbacks, which may run anywhere.
        self._released: deque[Mailbox] = deque()

    def begin(self, box: Mailbox) -> None:
        """A mailbox begins to live, whose name nobody holds yet."""
        self._unheld.add(box)

    def hold(self, box: Mailbox) -> ChannelName:
        """The name that holds a mailbox; the one that does already, if there is one."""
        self.note_use(box)
        held = None if box.handle is None else box.handle()
        if held is None:
            held = ChannelName(box.name)
            self._unheld.discard(box)
            box.handle = Handle(held, self._release)
            box.handle.box = box
        return held

    def note_use(self, box: Mailbox) -> None:
        """Somebody waits on a mailbox, or took a message."""
        if self._ending:
            self._ending.pop(box, None)

    def due(self, now: float) -> list[Mailbox]:
        """The mailboxes whose time is over; they are forgotten here."""
        self._begin_ends(now)
        ended = []
        while self._ending:
            box, deadline = next(iter(self._ending.items()))
            if deadline > now:
                break
            del self._ending[box]
            self._unheld.discard(box)
            box.waiter = None  # breaks the cycle
            ended.append(box)
        return ended

    def _release(self, handle: weakref.ref[ChannelName]) -> None:
        self._released.append(handle.box)  # type: ignore[attr-defined]

    def _begin_ends(self, now: float) -> None:
        while self._released:
            box = self._released.popleft()
            if box.handle is not None and box.handle() is None:
                box.handle = None  # breaks the cycle
                self._unheld.add(box)
        for box in self._unheld:
            if not box.waiters:
                self._ending.setdefault(box, now + self._expiry)
