"""Who gets what readers pop: mailboxes of a process, or waiters of one channel."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from typing import Any

from ._codec import Codec, Message, copier
from ._counters import Counters
from ._mailbox import Inbox
from ._mailboxes import Mailboxes
from ._reader import Entry, Reader
from ._scripts import PUT_BACK
from ._shard import Shard
from .exceptions import UnreadableMessage

Outcome = tuple[Message, "Reader", Entry]


def deliver(
    member: bytes,
    key: bytes,
    codec: Codec,
    inbox: Inbox,
    mailboxes: Mailboxes,
    counters: Counters,
) -> None:
    """Puts what was popped from a process's key into the mailboxes it is for."""
    try:
        channels, message, flat = codec.open(member, key)
    except UnreadableMessage as error:
        counters.count("unreadable", error)
        return
    copy = copier(codec, member, key, message, flat)
    unknown = mailboxes.put(inbox, channels or (), message, copy)
    if unknown or not channels:
        counters.count("for no channel of this process", inbox.name, unknown or 1)


class InboxReceiver:
    """Keeps one inbox fed: a reader of its process key, in one event loop."""

    def __init__(
        self,
        inbox: Inbox,
        shard: Shard,
        key: bytes,
        mailboxes: Mailboxes,
        codec: Codec,
        counters: Counters,
        retire: Callable[[Inbox], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._inbox = inbox
        self._retire = retire
        self._mailboxes = mailboxes
        self._codec = codec
        self._counters = counters
        self._reader = Reader(
            shard,
            key,
            demand=self._demand,
            deliver=self._deliver,
            refuse=self._refuse,
        )

    def poke(self) -> None:
        """Reads if there is demand; from any thread.

        Raises `RuntimeError` when the loop of the reader is closed.
        """
        if asyncio._get_running_loop() is self.loop:
            self._reader.poke()
        else:
            self.loop.call_soon_threadsafe(self._reader.poke)

    def retire(self) -> None:
        """Ends it if no channel is left; from any thread, as `poke`."""
        self.loop.call_soon_threadsafe(self._retire, self._inbox)

    async def aclose(self) -> None:
        """Stops reading; what was on its way is in the mailboxes on return."""
        await self._reader.aclose()

    def _demand(self) -> int:
        room = self._inbox.room()
        self._inbox.stalled = room == 0
        return room

    def _deliver(self, reader: Reader, entries: list[Entry]) -> None:
        for member, _ in entries:
            deliver(
                member,
                reader.key,
                self._codec,
                self._inbox,
                self._mailboxes,
                self._counters,
            )

    def _refuse(self, error: Exception) -> None:
        self._inbox.stalled = True  # who asks next tries again
        self._mailboxes.refuse(self._inbox, functools.partial(_again, error))


class ReceiverClosed(Exception):
    """The receiver was closed, not its caller: another one goes on."""


class ChannelReceiver:
    """Receives on a normal channel in one event loop: on all shards, never ahead."""

    def __init__(
        self,
        name: str,
        key: bytes,
        shards: list[Shard],
        codec: Codec,
        counters: Counters,
        expiry: float,
    ) -> None:
        self._name = name
        self._key = key
        self._codec = codec
        self._counters = counters
        self._expiry = expiry
        self._waiters: deque[asyncio.Future[Outcome]] = deque()
        self._returning: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()
        self.idle_since = self._loop.time()
        self._readers = [
            Reader(
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
        """Whether nobody waits and nothing is on its way."""
        return not self._waiters and not self._returning

    async def receive(self) -> Message:
        """The next message; cancelled, it hands on or back what was on its way."""
        waiter: asyncio.Future[Outcome] = self._loop.create_future()
        self._waiters.append(waiter)
        for reader in self._readers:
            reader.poke()
        try:
            message, _, _ = await waiter
            # The other shards' messages must not wait for a caller who is busy now.
            await self._stop_unwanted()
        except BaseException as error:
            self._withdraw(waiter)
            if isinstance(error, asyncio.CancelledError):
                await self._stop_unwanted()
            raise
        finally:
            self.idle_since = self._loop.time()
        return message

    async def aclose(self) -> None:
        """Stops reading; a message that was on its way is back in Redis on return.

        Who waits gets `ReceiverClosed`, and may ask another receiver.
        """
        self._raise(ReceiverClosed)
        await asyncio.gather(*(reader.settle() for reader in self._readers))
        await self._returned()
        await asyncio.gather(*(reader.aclose() for reader in self._readers))

    def _demand(self) -> int:
        return sum(not waiter.done() for waiter in self._waiters)

    def _deliver(self, reader: Reader, entries: list[Entry]) -> None:
        for entry in entries:
            try:
                _, message, _ = self._codec.open(entry[0], self._key)
            except UnreadableMessage as error:
                self._counters.count("unreadable", error)
            else:
                self._hand((message, reader, entry))

    def _hand(self, outcome: Outcome) -> None:
        """Gives a message to the first who waits, or puts it back at its place."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(outcome)
                return
        _, reader, (member, score) = outcome
        command = PUT_BACK.on(self._key, self._expiry, score, member)
        # Not repeated when the connection breaks: who got it meanwhile has it.
        task = reader.shard.spawn(reader.shard.run(command))
        self._returning.add(task)
        task.add_done_callback(self._put_back)

    def _put_back(self, task: asyncio.Task[Any]) -> None:
        self._returning.discard(task)
        if task.cancelled() or task.exception() is not None:
            self._counters.count("lost while being put back", self._name)

    def _withdraw(self, waiter: asyncio.Future[Outcome]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self._hand(waiter.result())

    async def _stop_unwanted(self) -> None:
        """Unless somebody waits: on return nothing is on its way here."""
        busy = self._returning or any(reader.is_popping for reader in self._readers)
        if busy and not self._waiters:
            # A cancellation ends the caller; this goes on by itself.
            shard = self._readers[0].shard
            await asyncio.shield(shard.spawn(self._settle()))

    async def _settle(self) -> None:
        await asyncio.gather(*(reader.settle() for reader in self._readers))
        await self._returned()

    async def _returned(self) -> None:
        while self._returning:
            await asyncio.wait(list(self._returning))

    def _refuse(self, error: Exception) -> None:
        self._raise(functools.partial(_again, error))

    def _raise(self, error: Callable[[], Exception]) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(error())


def _again(error: Exception) -> Exception:
    """A new instance for each caller: a raised exception collects a traceback."""
    return type(error)(*error.args)
