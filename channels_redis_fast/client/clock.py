"""Redis's clock, by which encrypted messages are stamped and checked."""

from __future__ import annotations

import functools
import time
from typing import Any, Protocol

from .asked_once import AskedOnce

TIME = (b"TIME",)


class Stamps(Protocol):
    """What stamps messages, and judges how old they are."""

    clock_offset: int


class ServerClock(AskedOnce):
    """How far Redis's clock is ahead of this machine's, as new connections tell.

    All processes take the first host's that told, so that it is the same for all. Any
    command makes it known, as that has a connection opened.
    """

    def __init__(self, stamps: list[Stamps]) -> None:
        super().__init__()
        self._stamps = stamps
        self._offsets: dict[int, int] = {}  # seconds, by the index of the host

    def note(self, host: int, reply: object) -> None:
        """Takes a host's answer to TIME; another one, an error, changes nothing."""
        if isinstance(reply, list) and len(reply) == 2:
            seconds = int(reply[0]) + int(reply[1]) / 1e6
            self._offsets[host] = round(seconds - time.time())
            offset = self._offsets[min(self._offsets)]
            for one in self._stamps:
                one.clock_offset = offset


def clock_of(serializers: list[Any], hosts: list[Any]) -> ServerClock | None:
    """The clock of what these serialisers encrypt, told by the hosts; None: nothing."""
    frames = [
        getattr(one, name, None) for one in serializers for name in ("crypter", "aead")
    ]
    stamps: list[Any] = [one for one in frames if hasattr(one, "clock_offset")]
    if not stamps:
        return None
    clock = ServerClock(stamps)
    for index, host in enumerate(hosts):
        host.note_time = functools.partial(clock.note, index)
    return clock
