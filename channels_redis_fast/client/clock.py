"""Redis's clock, by which encrypted messages are stamped and checked."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from redis.exceptions import ResponseError

from ..commands.errors import Kind, kind_of

TIME = (b"TIME",)


class Stamps(Protocol):
    """What stamps messages, and judges how old they are."""

    clock_offset: int


class ServerClock:
    """How far Redis's clock is ahead of this machine's, as new connections tell.

    All processes take the first host's that told, so that it is the same for all.
    """

    def __init__(self, stamps: list[Stamps]) -> None:
        self._stamps = stamps
        self._offsets: dict[int, int] = {}  # seconds, by the index of the host
        self._is_known = False
        self.begin()

    def begin(self) -> None:
        """Forgets who waits in `learn`; anew after a fork, which leaves them behind."""
        self._learning: list[object] = []  # a list: threads append and pop at once

    @property
    def is_settled(self) -> bool:
        """Whether a connection told, and nobody waits in `learn` any more."""
        return self._is_known and not self._learning

    async def learn(self, run: Callable[[], Awaitable[object]]) -> None:
        """Returns when a connection told, if none did; `run` has one opened.

        Called before a message is stamped, unless `is_settled`. Those that come while
        others wait here wait behind them, so that all are sent in the order of their
        calls.
        """
        learning = self._learning
        learning.append(self)
        try:
            await run()
        except ResponseError as error:
            if kind_of(error) is not Kind.FINAL:
                raise  # it was tried again until the call's time was over
        finally:
            learning.pop()
        self._is_known = True

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
