"""Sends that nobody waits for: how many there may be, and what came of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from time import monotonic
from typing import Any

from redis import exceptions as errors

from ..client.shard import Shard
from ..commands.bulk import KeyBatches
from ..commands.census import without
from ..commands.command import Command
from ..commands.operations import Operations, Request
from ..commands.scripts import key_of
from ..mailboxes.dropped import DropCounters

# So many messages may be unanswered at a server; then senders wait until half of them
# are answered, so that they wake rarely and send many at a time.
_MOST = 1000
_FEW = _MOST // 2
# How many of them a group's message counts for as long as its members are asked for:
# it becomes a message for each of their processes.
_GROUP_WEIGHT = 10

FULL = "not sent, channel full"
FAILED = "send failed"


class Batch:
    """What was sent between two `UnconfirmedSends.settled`."""

    __slots__ = ("_answered", "_open")

    def __init__(self) -> None:
        self._open = 0
        self._answered: asyncio.Event | None = None

    @property
    def is_open(self) -> bool:
        """Whether something is unanswered."""
        return self._open > 0

    def add(self) -> None:
        """One more command was sent."""
        self._open += 1

    def remove(self) -> None:
        """A command was answered, or never will be."""
        self._open -= 1
        if not self._open and self._answered is not None:
            self._answered.set()

    async def wait(self) -> None:
        """Returns when all is answered."""
        if self._open:
            self._answered = self._answered or asyncio.Event()
            await self._answered.wait()


class PendingReply:
    """What stands in a connection's queue where else a caller's future does."""

    __slots__ = ("batch", "command", "messages", "queue", "weight")

    batch: Batch | None

    def __init__(
        self, queue: ShardQueue, command: Command, messages: int = 1, weight: int = 1
    ) -> None:
        self.queue = queue
        self.command = command
        self.messages = messages
        self.weight = weight
        self.batch = None  # not sent yet

    def done(self) -> bool:
        """Never before its turn: nobody can cancel it."""
        return False

    def set_result(self, reply: Any) -> None:
        """Takes the reply."""
        self.queue.take(self, reply)

    def set_exception(self, error: BaseException) -> None:
        """Takes the error: of the command, or of the connection."""
        self.queue.failed(self, error)

    def answer(self, reply: Any) -> None:
        """What a reply means; a publication's doesn't matter."""


class Stored(PendingReply):
    """One message for a channel key, or several."""

    __slots__ = ()

    def answer(self, reply: Any) -> None:
        """Counts the messages that found no room."""
        full = (not reply) if isinstance(reply, int) else reply.count(0)
        if full:
            self.queue.counters.count(FULL, _name(self.command), full)


class Asked(PendingReply):
    """A question for the members of a group, and the messages for them."""

    __slots__ = ("bodies", "excluded")

    def __init__(
        self,
        queue: ShardQueue,
        command: Command,
        bodies: list[Any],
        excluded: frozenset[bytes] = frozenset(),
    ) -> None:
        count = len(bodies)
        super().__init__(queue, command, count, count * _GROUP_WEIGHT)
        self.bodies = bodies
        self.excluded = excluded

    def answer(self, reply: Any) -> None:
        """Sends the messages to the members."""
        if self.batch is not None:
            self.queue.sends.deliver(self, reply, self.batch)


class ShardQueue:
    """The unanswered sends at one shard, and who waits for room, in their order."""

    def __init__(
        self, sends: UnconfirmedSends, shard: Shard, counters: DropCounters
    ) -> None:
        self.sends = sends
        self.counters = counters
        self.index = shard.index
        self._shard = shard
        self.load = 0
        self._senders: deque[tuple[PendingReply, asyncio.Future[bool]]] = deque()

    async def put(self, pending: PendingReply, began: float = 0.0) -> None:
        """Returns when the command is in a connection's buffer, which has room.

        Raises redis-py's `ConnectionError` when there is no connection, or no room
        within `command_timeout` of when its call `began` (`time.monotonic()`; 0: now).
        """
        much: bool | None = None
        if not self._senders and self.load < _MOST:
            much = self._shard.post(pending.command, pending)
        if much is None:
            await self._put_later(pending, began)
            return
        self._add(pending, self.sends.batch)
        if much:
            await asyncio.sleep(0)  # else a loop of sends would keep it from writing

    def push(self, pending: PendingReply, batch: Batch) -> None:
        """As `put`, for what can't wait and belongs to an earlier send."""
        self._add(pending, batch)
        if self._shard.post(pending.command, pending) is None:
            self._shard.post_later(pending.command, pending)

    def take(self, pending: PendingReply, reply: Any) -> None:
        """A reply came."""
        try:
            pending.answer(reply)
        except Exception as error:  # of a serialiser, for instance
            self._count(pending, error)
        self._remove(pending)

    def failed(self, pending: PendingReply, error: BaseException) -> None:
        """An error came, that nothing was tried again for, or in vain."""
        self._count(pending, error)
        self._remove(pending)

    # Steps

    async def _put_later(self, pending: PendingReply, began: float) -> None:
        loop = asyncio.get_running_loop()
        written: asyncio.Future[bool] = loop.create_future()
        self._senders.append((pending, written))
        if len(self._senders) == 1:  # else there is no room, or it is kept for many
            self._admit()
        left = self._shard.command_timeout - (monotonic() - began if began else 0.0)
        timer = loop.call_later(left, self._expire, written)
        try:
            await written
        except BaseException:
            if pending.batch is not None and not _is_written(written):
                self._remove(pending)
            raise
        finally:
            timer.cancel()

    def _expire(self, written: asyncio.Future[bool]) -> None:
        if not written.done():
            text = f"no room within {self._shard.command_timeout:g} s"
            written.set_exception(errors.ConnectionError(text))

    def _admit(self) -> None:
        """Writes for those who wait for room, as long as there is some."""
        while self._senders and self.load < _MOST:
            pending, written = self._senders.popleft()
            if not written.done():
                self._add(pending, self.sends.batch)
                self._shard.post_later(pending.command, pending, written)

    def _add(self, pending: PendingReply, batch: Batch) -> None:
        self.load += pending.weight
        pending.batch = batch
        batch.add()

    def _remove(self, pending: PendingReply) -> None:
        self.load -= pending.weight
        if pending.batch is not None:
            pending.batch.remove()
        if self._senders and self.load <= _FEW:
            self._admit()

    def _count(self, pending: PendingReply, error: BaseException) -> None:
        detail = f"{_name(pending.command)}: {error}"
        self.counters.count(FAILED, detail, pending.messages)


class UnconfirmedSends:
    """The unanswered sends of one event loop.

    A message is in a connection's buffer when a method returns; what comes of it is
    counted. Raises redis-py's `ConnectionError` while there is no connection.
    """

    def __init__(
        self, shards: list[Shard], operations: Operations, counters: DropCounters
    ) -> None:
        self.batch = Batch()
        self._earlier: list[Batch] = []
        self._operations = operations
        self._queues = [ShardQueue(self, shard, counters) for shard in shards]

    def store(
        self, request: Request, messages: int = 1, *, began: float = 0.0
    ) -> Coroutine[Any, Any, None]:
        """Sends what adds messages to a channel's key; `began`: as `ShardQueue.put`."""
        index, command = request
        queue = self._queues[index]
        return queue.put(Stored(queue, command, messages, messages), began)

    def publish(
        self, request: Request, began: float = 0.0
    ) -> Coroutine[Any, Any, None]:
        """Sends a publication."""
        index, command = request
        queue = self._queues[index]
        return queue.put(PendingReply(queue, command), began)

    def store_for_group(
        self,
        request: Request,
        bodies: list[Any],
        excluded: frozenset[bytes] = frozenset(),
    ) -> Coroutine[Any, Any, None]:
        """Sends bodies to a group's members when it is asked, not to the `excluded`."""
        index, command = request
        queue = self._queues[index]
        return queue.put(Asked(queue, command, bodies, excluded))

    def deliver(self, asked: Asked, members: list[bytes], batch: Batch) -> None:
        """The second half of a group's messages, whose members came."""
        request = asked.queue.index, asked.command
        members = self._operations.note_members(request, members)
        members = without(members, asked.excluded)
        batches = KeyBatches(self._operations)
        for number, body in enumerate(asked.bodies):
            for sealed in self._operations.seal_all(members, body):
                batches.add(number, sealed)
        for part in batches.parts():
            index, command = self._operations.store([sealed for _, sealed in part])
            queue = self._queues[index]
            queue.push(Stored(queue, command, len(part), len(part)), batch)

    async def settled(self) -> None:
        """Returns when all that was sent until now is answered, or never will be."""
        self._earlier.append(self.batch)
        self.batch = Batch()
        for batch in list(self._earlier):
            await batch.wait()
        self._earlier = [batch for batch in self._earlier if batch.is_open]


def _name(command: Command) -> str:
    key = key_of(command)
    return key.decode() if isinstance(key, bytes) else key


def _is_written(written: asyncio.Future[bool]) -> bool:
    return written.done() and not written.cancelled() and not written.exception()
