"""Reads a normal channel for those who wait on it, and claims ahead if asked to."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable

from .._settings import Settings
from ..client.shard import Shard
from ..commands.errors import copy_of
from ..commands.operations import Operations
from ..exceptions import UnreadableMessage
from ..mailboxes.dropped import DropCounters
from ..wire.codec import Message
from .poller import KeyPoller
from .pops import Entry
from .returns import Returns

Outcome = tuple[Message, "KeyPoller", Entry]

# What was claimed goes back after so long (seconds), or a quarter of `expiry`.
_LONGEST_HOLD = 5.0


class ReaderClosed(Exception):
    """The receiver was closed, not its caller: another one goes on."""


class NormalChannelReader:
    """Receives on a normal channel in one event loop, on all shards.

    Never ahead, unless `prefetch` is more than 1: so many messages are claimed at a
    time from each shard. Those that nobody comes for go back after a while. `idle`
    takes those in which nobody waits, the longest idle first.
    """

    def __init__(
        self,
        name: str,
        shards: list[Shard],
        operations: Operations,
        counters: DropCounters,
        settings: Settings,
        idle: dict[str, NormalChannelReader],
    ) -> None:
        self._name = name
        self._idle = idle
        self._key = key = operations.channel_key(name)
        self._codec = operations.codec
        self._counters = counters
        self._messages = operations.messages
        self._expiry = settings.expiry
        self._prefetch = settings.prefetch
        self._hold = min(_LONGEST_HOLD, settings.expiry / 4)
        # Claimed ahead, with the time when they go back.
        self._claimed: deque[tuple[float, Outcome]] = deque()
        self._waiters: deque[asyncio.Future[Outcome]] = deque()
        self._returns = Returns(name, operations, counters, self._keep)
        self._callers = 0
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self.idle_since = 0.0
        self._readers = [
            KeyPoller(
                shard,
                key,
                demand=self._demand,
                deliver=self._deliver,
                refuse=self._refuse,
            )
            for shard in shards
        ]

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits and nothing is here or on its way."""
        return not (self._waiters or self._returns.under_way or self._claimed)

    async def receive(self) -> Message:
        """The next message; cancelled, it hands on or back what was on its way."""
        self._callers += 1
        try:
            return await self._receive()
        finally:
            self._callers -= 1
            self._rest()

    async def _receive(self) -> Message:
        if self._prefetch > 1 or self._claimed:
            self.recall()
            if self._claimed:
                return self._claimed.popleft()[1][0]
            await self._returns.finish()  # else later ones would come before
            if self._closed:
                raise ReaderClosed
        waiter: asyncio.Future[Outcome] = self._loop.create_future()
        self._waiters.append(waiter)
        for reader in self._readers:
            reader.resume()
        try:
            message, _, _ = await waiter
            # The other shards' messages must not wait for a caller who is busy now.
            if self._prefetch == 1:
                await self._stop_unwanted()
        except BaseException as error:
            self._withdraw(waiter)
            if isinstance(error, asyncio.CancelledError):
                await self._stop_unwanted()
            raise
        return message

    def _rest(self) -> None:
        # Not while another caller is about to leave: it may be closed by then.
        if not self._callers and not self._closed:
            self.idle_since = self._loop.time()
            self._idle[self._name] = self

    def recall(self) -> None:
        """Puts back what was claimed for too long; its expiry is for Redis to judge.

        While Redis is away it stays here, until it must have expired.
        """
        now = self._loop.time()
        if not self._claimed or self._claimed[0][0] > now:
            return
        if not any(reader.shard.health.is_down for reader in self._readers):
            self._give_back()
        expired = now - self._expiry + self._hold
        while self._claimed and self._claimed[0][0] <= expired:
            self._claimed.popleft()
            self._counters.count("expired before being read", self._name)

    def forget(self) -> None:
        """Drops what was claimed."""
        self._claimed.clear()

    async def aclose(self) -> None:
        """Stops reading; what was claimed or on its way is back in Redis on return.

        Who waits gets `ReaderClosed`, and may ask another receiver.
        """
        self._closed = True
        self._raise(ReaderClosed)
        await self._settle()
        await asyncio.gather(*(reader.aclose() for reader in self._readers))

    def _demand(self) -> int:
        wanted = sum(not waiter.done() for waiter in self._waiters)
        return max(wanted, self._prefetch) if wanted else 0

    def _deliver(self, reader: KeyPoller, entries: list[Entry]) -> None:
        self._messages.received.add(len(entries))
        for entry in entries:
            try:
                _, message, _ = self._codec.open(entry[0], self._key)
            except UnreadableMessage as error:
                self._counters.unreadable(self._key, error)
            else:
                self._hand((message, reader, entry))

    def _hand(self, outcome: Outcome) -> None:
        """Gives a message to the first who waits, or keeps it, or puts it back."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(outcome)
                return
        if self._prefetch > 1:
            self._claimed.append((self._loop.time() + self._hold, outcome))
        else:
            self._returns.begin(outcome[1], [outcome[2]])

    def _hand_on(self, outcome: Outcome) -> None:
        """As `_hand`, for one that was given to a caller who was cancelled."""
        self._hand(outcome)
        if len(self._claimed) > 1:  # it may have come before others
            in_order = sorted(self._claimed, key=lambda one: float(one[1][2][1]))
            self._claimed = deque(in_order)

    def _give_back(self) -> None:
        """Puts all that was claimed back at its place."""
        entries: dict[KeyPoller, list[Entry]] = {}
        while self._claimed:
            _, (_, reader, entry) = self._claimed.popleft()
            entries.setdefault(reader, []).append(entry)
        for reader, some in entries.items():
            self._returns.begin(reader, some)

    def _keep(self, reader: KeyPoller, entries: list[Entry]) -> bool:
        """Holds what Redis doesn't take back now; who comes meanwhile gets it.

        False when this is closed: nobody comes any more.
        """
        if self._closed:
            return False
        until = self._loop.time() + self._hold
        for entry in entries:
            _, message, _ = self._codec.open(entry[0], self._key)
            self._claimed.append((until, (message, reader, entry)))
        while self._claimed and self._waiters:
            self._hand(self._claimed.popleft()[1])
        return True

    def _withdraw(self, waiter: asyncio.Future[Outcome]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self._hand_on(waiter.result())

    async def _stop_unwanted(self) -> None:
        """Unless somebody waits: on return nothing is on its way here."""
        busy = not self.is_idle or any(reader.is_popping for reader in self._readers)
        if busy and not self._waiters:
            # A cancellation ends the caller; this goes on by itself.
            shard = self._readers[0].shard
            await asyncio.shield(shard.spawn(self._settle()))

    async def _settle(self) -> None:
        await asyncio.gather(*(reader.stop_polling() for reader in self._readers))
        if self._closed or not self._waiters:
            self._give_back()
        await self._returns.finish()

    def _refuse(self, error: Exception) -> None:
        self._raise(functools.partial(copy_of, error))

    def _raise(self, error: Callable[[], Exception]) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(error())
