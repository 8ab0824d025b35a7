"""How long mailboxes live: as long as their names, and a while longer."""

from __future__ import annotations

import weakref
from collections import OrderedDict, deque

from .mailbox import ChannelName, Handle, Mailbox


class Lifetimes:
    """Which mailboxes nobody holds, and when they end.

    Names may have been copied, so a mailbox stays for `expiry` seconds after its name
    went or somebody last waited on it. But for what collects garbage, callers take
    turns.
    """

    def __init__(self, expiry: float) -> None:
        self._expiry = expiry
        # Those that nobody holds. In use: since the last `review` somebody waited or
        # took a message, or still waits.
        self._in_use: set[Mailbox] = set()
        # The others, with the time of their end, oldest first. (A dict would pass by
        # all that ended before to find its first.)
        self._ending: OrderedDict[Mailbox, float] = OrderedDict()
        # Filled by weakref callbacks, which may run anywhere.
        self._released: deque[Mailbox] = deque()

    def begin(self, box: Mailbox) -> None:
        """A mailbox begins to live, whose name nobody holds yet."""
        self._in_use.add(box)

    def hold(self, box: Mailbox) -> ChannelName:
        """The name that holds a mailbox; the one that does already, if there is one."""
        held = None if box.handle is None else box.handle()
        if held is None:
            held = ChannelName(box.name)
            self._in_use.discard(box)
            self._ending.pop(box, None)
            box.handle = Handle(held, self._release)
            box.handle.box = box
        return held

    def note_use(self, box: Mailbox) -> None:
        """Somebody waits on a mailbox that nobody holds, or took a message."""
        if self._ending and self._ending.pop(box, None) is not None:
            self._in_use.add(box)

    def forget(self, box: Mailbox) -> None:
        """A mailbox ends before its time; what its name does matters no more."""
        self._in_use.discard(box)
        self._ending.pop(box, None)
        box.handle = box.waiter = None

    def review(self, now: float) -> None:
        """Those on which nobody waits any more begin to end."""
        for box in [box for box in self._in_use if not box.waiters]:
            self._in_use.discard(box)
            self._ending[box] = now + self._expiry

    def due(self, now: float, most: int) -> list[Mailbox]:
        """Mailboxes whose time is over, up to so many; they are forgotten here."""
        self._begin_ends(now, most)
        ended: list[Mailbox] = []
        while self._is_due(now) and len(ended) < most:
            box, _ = self._ending.popitem(last=False)
            box.waiter = None  # breaks the cycle
            ended.append(box)
        return ended

    def are_more(self, now: float) -> bool:
        """Whether `due` has more to do."""
        return bool(self._released) or self._is_due(now)

    def _is_due(self, now: float) -> bool:
        return bool(self._ending) and next(iter(self._ending.values())) <= now

    def _release(self, handle: weakref.ref[ChannelName]) -> None:
        self._released.append(handle.box)  # type: ignore[attr-defined]

    def _begin_ends(self, now: float, most: int) -> None:
        """Looks at up to so many whose names went."""
        for _ in range(min(most, len(self._released))):
            box = self._released.popleft()
            if box.handle is not None and box.handle() is None:
                box.handle = None  # breaks the cycle
                if box.waiters:
                    self._in_use.add(box)
                else:
                    self._ending[box] = now + self._expiry
