"""What this process wants to hear: channels join and leave the names at Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from redis import exceptions as errors

from ..commands.errors import is_connection_loss
from ..mailboxes.waiters import TaskWaiter
from .owners import Owner, confirm, tell_forget
from .table import SubscriptionTable

_BATCH = 512  # channels that are subscribed again together


class SubscriptionRegistry:
    """Keeps a table of subscriptions, and sees that its owners do what it says.

    When an owner's loop stops or ends, a loop in which somebody waits becomes the
    owner. `here` is the owner of the running loop, `timeout` (seconds) bounds the wait
    for another loop. All methods may be called from any thread.
    """

    def __init__(
        self, table: SubscriptionTable, here: Callable[[], Owner], timeout: float
    ) -> None:
        self._table = table
        self._here = here
        self._timeout = timeout

    def note_wait(self, waiter: TaskWaiter) -> None:
        """Somebody waits in a loop that isn't the one which listens.

        Its clock is to see when the other one stands still.
        """
        try:
            self._here()
        except BaseException:
            waiter.leave()
            raise

    async def listen(self, channel: str) -> None:
        """Listens to a channel's own name here, and to all that nobody listens to.

        While Redis can't be reached it goes on trying and returns.
        """
        name = channel.encode()
        self.claim()
        try:
            await self._join(name, channel, name, keep=True)
        except errors.RedisError as error:
            if not is_connection_loss(error):
                raise
            self.claim([name])

    async def listen_all(self) -> None:
        """As `listen`, for each channel that has messages of its own name."""
        channels = self._table.listening()
        for start in range(0, len(channels), _BATCH):
            batch = channels[start : start + _BATCH]
            await asyncio.gather(*map(self.listen, batch))

    async def join(self, name: bytes, channel: str, beside: bytes) -> None:
        """Gives a channel the messages of a name; returns when Redis has confirmed.

        A name that isn't subscribed yet gets the owner of the name `beside`, if that
        has one. Raises what Redis or redis-py does; nothing has changed then.
        """
        await self._join(name, channel, beside, keep=False)

    def leave(self, name: bytes, channel: str) -> None:
        """Gives a channel no more messages of a name."""
        tell_forget(self._table.leave(name, channel), name)

    def end(self, channel: str) -> None:
        """Gives a channel no more messages at all."""
        for name in self._table.names_of(channel):
            self.leave(name, channel)

    def drop(self, name: bytes) -> None:
        """Gives nobody a name's messages any more."""
        for channel in self._table.members(name):
            self.leave(name, channel)

    def claim(self, names: list[bytes] | None = None) -> None:
        """Makes this loop the owner of names, or of all that nobody listens to."""
        owner = self._here()
        claimed = self._table.claim(owner, names)
        if claimed:
            owner.settle([name for _, name in claimed])
        for former, name in claimed:
            if former is not owner:
                tell_forget(former, name)

    async def _join(self, name: bytes, channel: str, beside: bytes, keep: bool) -> None:
        join = object()
        former, owner = self._table.join(name, channel, join, beside, self._here())
        if former is not owner:
            tell_forget(former, name)
        stays = False
        try:
            await confirm(owner, name, self._timeout)
            stays = True
        except errors.RedisError as error:
            stays = keep and is_connection_loss(error)
            raise
        finally:
            tell_forget(self._table.settle(name, channel, join, stays), name)
