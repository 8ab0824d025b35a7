"""Sends that nobody waits for: how many there may be, and what came of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

from redis import exceptions as errors

from ._bulk import Parcels
from ._connection import Command
from ._counters import Counters
from ._operations import Operations, Request
from ._rules import is_connection_loss, is_demotion, is_passing
from ._scripts import key_of
from ._shard import Shard

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
    """What was sent between two `Outbox.settled`."""

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


class Receipt:
    """What stands in a connection's queue where else a caller's future does."""

    __slots__ = ("batch", "command", "lane", "messages", "weight")

    repeat = False  # whether running the command twice is harmless
    batch: Batch

    def __init__(
        self, lane: Lane, command: Command, messages: int = 1, weight: int = 1
    ) -> None:
        self.lane = lane
        self.command = command
        self.messages = messages
        self.weight = weight

    def done(self) -> bool:
        """Never before its turn: nobody can cancel it."""
        return False

    def set_result(self, reply: Any) -> None:
        """Takes the reply."""
        self.lane.take(self, reply)

    def set_exception(self, error: BaseException) -> None:
        """Takes the error: of the command, or of the connection."""
        self.lane.failed(self, error)

    def answer(self, reply: Any) -> None:
        """What a reply means; a publication's doesn't matter."""


class Stored(Receipt):
    """One message for a channel key, or several."""

    __slots__ = ()

    def answer(self, reply: Any) -> None:
        """Counts the messages that found no room."""
        full = (not reply) if isinstance(reply, int) else reply.count(0)
        if full:
            self.lane.counters.count(FULL, _name(self.command), full)


class Asked(Receipt):
    """A question for the members of a group, and the messages for them."""

    __slots__ = ("bodies",)

    repeat = True

    def __init__(self, lane: Lane, command: Command, bodies: list[Any]) -> None:
        count = len(bodies)
        super().__init__(lane, command, count, count * _GROUP_WEIGHT)
        self.bodies = bodies

    def answer(self, reply: Any) -> None:
        """Sends the messages to the members."""
        self.lane.outbox.deliver(reply, self.bodies, self.batch)


class Lane:
    """The unanswered sends at one shard, in their order."""

    def __init__(self, outbox: Outbox, shard: Shard, counters: Counters) -> None:
        self.outbox = outbox
        self.counters = counters
        self._shard = shard
        self._load = 0
        self._senders: list[asyncio.Future[None]] = []  # that wait for room
        # What has to be tried again, or couldn't be written; nothing overtakes it.
        self._later: deque[tuple[Receipt, errors.RedisError | None]] = deque()
        self._is_trying = False

    async def put(self, receipt: Receipt) -> None:
        """Returns when the command is in a connection's buffer, which has room.

        Raises redis-py's `ConnectionError` when there is no connection.
        """
        while True:
            while self._load >= _MOST or self._later:
                await self._relieved()
            much = self._shard.post(receipt.command, receipt)
            if much is not None:
                break
            await self._shard.prepare(receipt.command)
        self._add(receipt, self.outbox.batch)
        if much:
            await asyncio.sleep(0)  # else a loop of sends would keep it from writing

    def push(self, receipt: Receipt, batch: Batch) -> None:
        """As `put`, for what can't wait and belongs to an earlier send."""
        self._add(receipt, batch)
        if self._later or self._shard.post(receipt.command, receipt) is None:
            self._postpone(receipt, None)

    def take(self, receipt: Receipt, reply: Any) -> None:
        """A reply came."""
        try:
            receipt.answer(reply)
        except Exception as error:  # of a serialiser, for instance
            self._count(receipt, error)
        self._remove(receipt)

    def failed(self, receipt: Receipt, error: BaseException) -> None:
        """An error came; some are tried again."""
        again = isinstance(error, errors.RedisError) and self._shard.is_retried(
            error, receipt.repeat
        )
        if again:
            self._postpone(receipt, error)
        else:
            self._count(receipt, error)
            self._remove(receipt)

    # Steps

    def _add(self, receipt: Receipt, batch: Batch) -> None:
        self._load += receipt.weight
        receipt.batch = batch
        batch.add()

    def _remove(self, receipt: Receipt) -> None:
        self._load -= receipt.weight
        receipt.batch.remove()
        if self._senders and self._load <= _FEW and not self._later:
            self._relieve()

    def _relieve(self) -> None:
        senders, self._senders = self._senders, []
        for sender in senders:
            if not sender.done():
                sender.set_result(None)

    async def _relieved(self) -> None:
        sender: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._senders.append(sender)
        await sender

    def _count(self, receipt: Receipt, error: BaseException) -> None:
        detail = f"{_name(receipt.command)}: {error}"
        self.counters.count(FAILED, detail, receipt.messages)

    # Once more

    def _postpone(self, receipt: Receipt, error: Any) -> None:
        self._later.append((receipt, error))
        self._begin_trying()

    def _begin_trying(self) -> None:
        if self._later and not self._is_trying:
            self._is_trying = True
            self._shard.spawn(self._try_again()).add_done_callback(self._tried)

    async def _try_again(self) -> None:
        """One after the other; when a server stays away, none."""
        while self._later:
            receipt, error = self._later[0]
            try:
                reply = await self._shard.rerun(receipt.command, error, receipt.repeat)
            except errors.RedisError as later:
                self._drop(later, everything=_is_hopeless(later))
            else:
                self._later.popleft()
                self.take(receipt, reply)

    def _tried(self, trying: asyncio.Task[None]) -> None:
        # A callback: a task that its loop's end cancels may not have begun.
        self._is_trying = False
        if trying.cancelled():
            error = errors.ConnectionError("the event loop ended")
            self._drop(error, everything=True)
        elif (failure := trying.exception()) is not None:
            self._drop(failure, everything=True)
        self._relieve()
        self._begin_trying()

    def _drop(self, error: BaseException, everything: bool) -> None:
        for _ in range(len(self._later) if everything else 1):
            receipt, _ = self._later.popleft()
            self._count(receipt, error)
            self._remove(receipt)


class Outbox:
    """The unanswered sends of one event loop.

    A message is in a connection's buffer when a method returns; what comes of it is
    counted. Raises redis-py's `ConnectionError` while there is no connection.
    """

    def __init__(
        self, shards: list[Shard], operations: Operations, counters: Counters
    ) -> None:
        self.batch = Batch()
        self._earlier: list[Batch] = []
        self._operations = operations
        self._lanes = [Lane(self, shard, counters) for shard in shards]

    def store(self, request: Request, messages: int = 1) -> Coroutine[Any, Any, None]:
        """Sends what adds messages to a channel's key."""
        index, command = request
        lane = self._lanes[index]
        return lane.put(Stored(lane, command, messages, messages))

    def publish(self, request: Request) -> Coroutine[Any, Any, None]:
        """Sends a publication."""
        index, command = request
        lane = self._lanes[index]
        return lane.put(Receipt(lane, command))

    def store_for_group(
        self, group: str, bodies: list[Any]
    ) -> Coroutine[Any, Any, None]:
        """Sends a codec's bodies to the members that a group has when it is asked."""
        index, command = self._operations.members(group)
        lane = self._lanes[index]
        return lane.put(Asked(lane, command, bodies))

    def deliver(self, members: list[bytes], bodies: list[Any], batch: Batch) -> None:
        """The second half of a group's messages."""
        parcels = Parcels(self._operations)
        for number, body in enumerate(bodies):
            for sealed in self._operations.seal_all(members, body):
                parcels.add(number, sealed)
        for part in parcels.parts():
            index, command = self._operations.store([sealed for _, sealed in part])
            lane = self._lanes[index]
            lane.push(Stored(lane, command, len(part), len(part)), batch)

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


def _is_hopeless(error: errors.RedisError) -> bool:
    """Whether others would wait for the same in vain."""
    return is_connection_loss(error) or is_passing(error) or is_demotion(error)
