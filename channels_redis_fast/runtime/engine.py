"""One layer in one event loop: its shards, its receivers, its clock."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from redis.exceptions import RedisError

from .._settings import Settings
from ..client.cluster import make_shard
from ..client.host import Host
from ..client.shard import Shard
from ..commands.command import Command
from ..commands.operations import Operations, Request
from ..mailboxes.delivery import Delivery
from ..mailboxes.mailbox import MailboxGroup
from ..mailboxes.registry import LocalChannels
from ..polling.normal_channel import NormalChannelReader
from ..polling.process_key import ProcessKeyReader
from ..wire.codec import Message
from .base_engine import Engine
from .memberships import Memberships

_SHORTEST_TICK, _LONGEST_TICK = 0.01, 1.0  # seconds
# A reader of a normal channel is closed that was idle for so long (seconds), and the
# longest idle one when there are so many: each has a connection.
_LONGEST_IDLE = 1.0
_MOST_IDLE = 16


class LoopEngine(Engine):
    """Runs requests, keeps inboxes fed and tidies up, as long as its loop lives."""

    shards: list[Shard]

    def __init__(
        self,
        settings: Settings,
        *,
        hosts: list[Host],
        operations: Operations,
        mailboxes: LocalChannels,
        memberships: Memberships,
        delivery: Delivery,
        offer: Callable[[MailboxGroup], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._operations = operations
        self._mailboxes = mailboxes
        self._delivery = delivery
        self._memberships = memberships
        self._counters = delivery.counters
        self._settings = settings
        self._offer = offer
        self._channels: dict[str, NormalChannelReader] = {}
        self._idle: dict[str, NormalChannelReader] = {}
        self._inboxes: dict[MailboxGroup, ProcessKeyReader] = {}
        self._under_way: set[asyncio.Task[None]] = set()  # what the end waits for
        self.shards = [
            make_shard(
                index, host, settings.command_timeout, memberships.restoration.steps
            )
            for index, host in enumerate(hosts)
        ]
        wanted = min(
            _LONGEST_TICK,
            settings.expiry / 4,
            settings.group_expiry / 8,
            settings.liveness / 12,
        )
        self._tick_every = max(_SHORTEST_TICK, wanted)
        # At once where nothing was swept lately: short loops may be all there are.
        swept = mailboxes.is_swept(self._tick_every)
        self._timer = self.loop.call_later(self._tick_every if swept else 0, self._tick)
        self._closed = self._is_tending = False
        self.on_tick: list[Callable[[], object]] = []  # what else is due by its clock
        self.on_end: list[Callable[[], Awaitable[object]]] = []

    # Commands

    def run(self, request: Request, began: float = 0.0) -> Awaitable[Any]:
        """As an `Engine`'s; no coroutine, for one more for each message is felt."""
        index, command = request
        return self.shards[index].run(command, began)

    send = publish = run

    async def run_all(self, requests: list[Request], began: float = 0.0) -> list[Any]:
        """As an `Engine`'s."""
        if len(requests) == 1:
            ((index, command),) = requests
            return await self.shards[index].run_all([command], began)
        by_shard: dict[int, list[int]] = {}
        for position, (index, _) in enumerate(requests):
            by_shard.setdefault(index, []).append(position)
        if len(by_shard) == 1:
            return await self.shards[index].run_all([one[1] for one in requests], began)
        replies: list[Any] = [None] * len(requests)

        async def run(index: int, positions: list[int]) -> None:
            commands: list[Command] = [requests[p][1] for p in positions]
            outcomes = await self.shards[index].run_all(commands, began)
            for position, outcome in zip(positions, outcomes, strict=True):
                replies[position] = outcome

        await asyncio.gather(*itertools.starmap(run, by_shard.items()))
        return replies

    async def unlink(self, pattern: bytes) -> None:
        """Deletes the keys that match a glob pattern."""
        await asyncio.gather(*(shard.unlink(pattern) for shard in self.shards))

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs work that outlives its caller; the end of the loop ends it."""
        return self.shards[0].spawn(work)

    # Receiving

    def receive(self, channel: str) -> Coroutine[Any, Any, Message]:
        """The next message of a normal channel."""
        receiver = self._channels.get(channel)
        if receiver is None:
            self._close_idle_channels(_MOST_IDLE)
            receiver = self._channels[channel] = NormalChannelReader(
                channel,
                self.shards,
                self._operations,
                self._counters,
                self._settings,
                self._idle,
            )
        self._idle.pop(channel, None)
        return receiver.receive()

    def forget_claimed(self) -> None:
        """Drops what readers of normal channels claimed ahead."""
        for receiver in list(self._channels.values()):
            receiver.forget()

    def make_reader(self, inbox: MailboxGroup) -> ProcessKeyReader:
        """Begins to read for an inbox here, or goes on with it."""
        receiver = self._inboxes.get(inbox)
        if receiver is None:
            receiver = self._inboxes[inbox] = self._inbox_receiver(inbox)
        receiver.note_that_it_runs()
        if inbox.reader is not None:  # in a loop that stands still
            receiver.take_over(inbox.reader)
        return receiver

    def _inbox_receiver(self, inbox: MailboxGroup) -> ProcessKeyReader:
        return ProcessKeyReader(
            inbox,
            self.shards[self._operations.shard_of(inbox.name)],
            self._operations.channel_key(inbox.name),
            self._mailboxes.owners,
            self._delivery,
            self._retire,
        )

    # The end

    async def aclose(self) -> None:
        """Awaits all sends, settles readers and groups, then closes all connections.

        Cancelled, as when its loop ends meanwhile, it goes on when it is called again.
        """
        self._closed = True
        self._timer.cancel()
        await self._wind_up()
        await asyncio.gather(*(shard.aclose() for shard in self.shards))

    async def _wind_up(self) -> None:
        await self.flush_sends()
        channels = self._channels.values()
        await asyncio.gather(*(channel.aclose() for channel in channels))
        # Also those under way: cut short, they would pass for readers for ever.
        releases = map(self._release, list(self._inboxes))
        await asyncio.gather(*releases, *self._under_way)
        if self._memberships.refreshes_due:  # short loops would never come to it
            await self._tend()
        for call in self.on_end:
            await call()

    async def _release(self, inbox: MailboxGroup) -> None:
        """Stops reading a key; who waits for its messages elsewhere takes over."""
        receiver = self._inboxes.pop(inbox, None)
        if receiver is None:
            return  # under way already
        try:
            await receiver.aclose()
        except asyncio.CancelledError:
            self._inboxes[inbox] = receiver  # the end of the loop comes to it again
            raise
        self._mailboxes.owners.release(inbox, receiver)
        self._offer(inbox)

    # Housekeeping

    def _tick(self) -> None:
        self._timer = self.loop.call_later(self._tick_every, self._tick)
        for inbox, reader in list(self._inboxes.items()):
            reader.note_that_it_runs()
            if inbox.reader is not reader:  # another loop took over
                self._retire(inbox)
        self._sweep()
        for receiver in self._channels.values():
            receiver.recall()
        oldest = self.loop.time() - _LONGEST_IDLE
        recent = sum(one.idle_since > oldest for one in self._idle.values())
        self._close_idle_channels(recent)
        for shard in self.shards:
            shard.tidy()
        if self._memberships.refreshes_due and not self._is_tending:
            self.spawn_to_its_end(self._tend())
        for call in self.on_tick:
            call()

    async def _tend(self) -> None:
        self._is_tending = True
        try:
            while await self._memberships.tend(self.run_all, self._is_down):
                pass
        except RedisError:  # next time
            pass
        finally:
            self._is_tending = False

    def _is_down(self, index: int) -> bool:
        return self.shards[index].health.is_down

    def _sweep(self) -> None:
        self._mailboxes.sweep()
        owners = self._mailboxes.owners
        for inbox in owners.orphans():
            if self.loop in owners.waiting_loops(inbox):
                self._offer(inbox)
        for owner in owners.needless():
            owner.retire()
        if self._mailboxes.is_behind:
            self.loop.call_soon(self._end_more)

    def _end_more(self) -> None:
        """Ends channels in portions, between which the loop goes on."""
        if self._mailboxes.is_behind and not self._closed:
            self._mailboxes.end_some()
            self.loop.call_soon(self._end_more)

    def _retire(self, inbox: MailboxGroup) -> None:
        """Stops reading a key here, unless a channel was made in it meanwhile."""
        if not inbox.boxes and not self._closed:
            self.spawn_to_its_end(self._release(inbox))

    def _close_idle_channels(self, most: int) -> None:
        """Closes the readers of the channels that were idle longest, over `most`."""
        too_many = max(0, len(self._idle) - most)
        for name, receiver in list(self._idle.items())[:too_many]:
            if receiver.is_idle:
                del self._idle[name], self._channels[name]
                self.spawn(receiver.aclose())

    def spawn_to_its_end(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """As `spawn`; not even the end of the loop cuts it short."""
        task = self.spawn(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task
