"""Messages for those mailboxes that have room, which keep them however long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection

from ..wire.codec import Message
from .mailbox import UNENDING, Mailbox


class Offers:
    """Puts messages into mailboxes, where nothing has to go for them.

    `put` is `LocalChannels.put`.
    """

    def __init__(
        self,
        lock: threading.RLock,
        boxes: dict[str, Mailbox],
        put: Callable[..., int],
    ) -> None:
        self._lock = lock
        self._boxes = boxes
        self._put = put

    def has_room(self, name: str) -> bool:
        """Whether there is a channel that takes one more message."""
        return not self._full((name,))

    def offer(
        self,
        names: Collection[str],
        message: Message,
        copy: Callable[[], Message],
        here: asyncio.AbstractEventLoop | None,
    ) -> list[str]:
        """Gives channels that have room a copy of a message; returns the others."""
        with self._lock:
            full = self._full(names)
            without = set(full)
            ready = [name for name in names if name not in without] if full else names
            self._put(None, ready, message, copy, here, UNENDING)
        return full

    def _full(self, names: Collection[str]) -> list[str]:
        """Those that have no room, or are none; a box has its `room`, as that says."""
        boxes = self._boxes
        return [
            name
            for name in names
            if (box := boxes.get(name)) is None
            or ((held := box.messages) and len(held) >= box.capacity + box.called)
        ]
