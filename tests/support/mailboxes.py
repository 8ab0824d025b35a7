"""Mailboxes without a layer, and what their owners are."""

from __future__ import annotations

import asyncio
from typing import Any

from channels_redis_fast.mailboxes.dropped import DropCounters
from channels_redis_fast.mailboxes.registry import LocalChannels

KEY = "specific.process!"


def channels(counters: DropCounters | None = None, **options: Any) -> LocalChannels:
    """Mailboxes for 3 messages each; the key of a name is what is before its `!`."""
    settings: dict[str, Any] = {
        "expiry": 60.0,
        "capacity_of": lambda name: 3,
        "inbox_of": lambda name: name[: name.index("!") + 1],
        "counters": counters or DropCounters(),
        "on_wait": None,
        "on_end": lambda name: None,
    }
    return LocalChannels(**{**settings, **options})


def put(boxes: LocalChannels, name: str, *numbers: int) -> None:
    """Puts numbered messages into a channel, as its key's reader in another thread."""
    for n in numbers:
        boxes.put(None, [name], {"n": n}, None)


def taken(boxes: LocalChannels, name: str) -> list[int]:
    """The numbers of all messages of a channel, which are taken."""
    numbers = []
    while isinstance(found := boxes.begin(name), tuple):
        numbers.append(found[1]["n"])
    if found is not None:
        found.leave()
    return numbers


class Reader:
    """An owner of a key that only notes what it is told."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_still = False
        self.told: list[str] = []

    def resume(self) -> None:
        """Notes it."""
        self.told.append("resume")

    def retire(self) -> None:
        """Notes it."""
        self.told.append("retire")

    def stands_still(self) -> bool:
        """What the test says."""
        return self.is_still
