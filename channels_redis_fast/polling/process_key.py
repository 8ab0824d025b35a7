"""Reads the key of a process into the mailboxes of its channels."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable

from redis.exceptions import RedisError

from ..client.shard import Shard
from ..commands.errors import copy_of
from ..mailboxes.delivery import Delivery
from ..mailboxes.mailbox import MailboxGroup
from ..mailboxes.ownership import Ownership
from .poller import KeyPoller
from .pops import Entry

# A loop that has not run for so long (seconds) lets others read.
_STILL_AFTER = 1.5


class ProcessKeyReader:
    """Keeps one inbox fed: a reader of its process key, in one event loop."""

    def __init__(
        self,
        inbox: MailboxGroup,
        shard: Shard,
        key: bytes,
        owners: Ownership,
        delivery: Delivery,
        retire: Callable[[MailboxGroup], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.ran_at = time.monotonic()
        self._inbox = inbox
        self._retire = retire
        self._owners = owners
        self._delivery = delivery
        self._reader = KeyPoller(
            shard,
            key,
            demand=self._demand,
            deliver=self._deliver,
            refuse=self._refuse,
            lost=delivery.note_loss,
        )

    def resume(self) -> None:
        """Reads if there is demand; from any thread.

        Raises `RuntimeError` when the loop of the reader is closed.
        """
        if asyncio._get_running_loop() is self.loop:
            self._reader.resume()
        else:
            self.loop.call_soon_threadsafe(self._reader.resume)

    def retire(self) -> None:
        """Ends it if no channel is left; from any thread, as `resume`."""
        self.loop.call_soon_threadsafe(self._retire, self._inbox)

    def note_that_it_runs(self) -> None:
        """Called by its loop, every second at least while that runs."""
        self.ran_at = time.monotonic()

    def stands_still(self) -> bool:
        """Whether its loop doesn't run, and hasn't for a while, or was closed.

        One that runs again and again does not: messages that it got meanwhile would be
        overtaken by those that another reader gets.
        """
        if self.loop.is_running():
            return False
        return self.loop.is_closed() or time.monotonic() > self.ran_at + _STILL_AFTER

    @property
    def waiting_client(self) -> int | None:
        """The id of the connection that waits at the server, where it is known."""
        return self._reader.waiting_client

    def take_over(self, other: ProcessKeyReader) -> None:
        """Reads from now on; the other's loop stands still.

        What came to the other already is delivered when its loop goes on or is closed.
        """
        if (client_id := other.waiting_client) is not None:
            shard = self._reader.shard
            shard.spawn(_end_wait(shard, self._reader.key, client_id))

    async def aclose(self) -> None:
        """Stops reading; what was on its way is in the mailboxes on return."""
        await self._reader.aclose()

    def _demand(self) -> int:
        return self._owners.room(self._inbox, self)

    def _deliver(self, reader: KeyPoller, entries: list[Entry]) -> None:
        for member, _ in entries:
            self._delivery.deliver(member, reader.key, self._inbox, self.loop)

    def _refuse(self, error: Exception) -> None:
        if self._inbox.reader is not self:
            return
        self._inbox.stalled = True  # who asks next tries again
        self._owners.refuse(self._inbox, functools.partial(copy_of, error))


async def _end_wait(shard: Shard, key: bytes, client_id: int) -> None:
    with contextlib.suppress(RedisError):  # else it runs out
        await shard.unblock(key, client_id)
