"""What has to be known of a server before the first commands are made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from redis.exceptions import ResponseError

from ..commands.errors import Kind, kind_of


class AskedOnce:
    """Holds callers up until something is known, and lets them go on in their order.

    Until then each asks for itself: only who asked has its turn at its server. Who
    comes when it is known asks nothing, and waits only while others, who came before to
    the same shard of the same event loop, still do.
    """

    def __init__(self, is_known: bool = False) -> None:
        self.is_known = is_known
        self.begin()

    def begin(self) -> None:
        """Forgets who waits; anew after a fork, which leaves them behind."""
        self._queues: dict[object, _Queue] = {}  # by shard, of one loop or one call
        self._settle()

    async def learn(self, shard: object, ask: Callable[[], Awaitable[object]]) -> None:
        """Returns when it is known; needless if it `is_settled`.

        `ask` asks the shard. A final error of the server is an answer, too; others are
        raised.
        """
        queue = self._queues.get(shard)
        if queue is None:
            if self.is_known:
                self._settle()
                return
            queue = self._queues[shard] = _Queue()
        try:
            if self.is_known:
                await queue.wait()
            else:
                await queue.ask(ask)
                self.is_known = True
        finally:
            if queue.is_empty:
                self._queues.pop(shard, None)
                self._settle()

    def _settle(self) -> None:
        """Notes whether it is known, and nobody waits any more.

        Threads that end their waits at the same moment may miss it; the next caller of
        `learn` notes it then.
        """
        # An attribute: who sends looks at it for each message.
        self.is_settled = self.is_known and not self._queues


class _Queue:
    """Those who ask a shard, and those who came when the answer was there already."""

    def __init__(self) -> None:
        self._asking = self._waiting = 0
        self._all_asked = asyncio.Event()

    @property
    def is_empty(self) -> bool:
        """Whether all went on."""
        return not self._asking and not self._waiting

    async def ask(self, ask: Callable[[], Awaitable[object]]) -> None:
        """Returns when the server answered; raises what isn't final."""
        self._asking += 1
        try:
            await ask()
        except ResponseError as error:
            if kind_of(error) is not Kind.FINAL:
                raise  # it was tried again until the call's time was over
        finally:
            self._asking -= 1
            if not self._asking:
                self._all_asked.set()

    async def wait(self) -> None:
        """Returns after those who ask, and after those who wait already."""
        self._waiting += 1
        try:
            if self._asking:
                await self._all_asked.wait()
            else:  # the others go on in this turn of the loop, or are about to
                await asyncio.sleep(0)
        finally:
            self._waiting -= 1
