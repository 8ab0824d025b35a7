"""The core channel layer: sorted sets in Redis, nothing lost while nobody reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any

from channels.exceptions import ChannelFull
from channels.layers import BaseChannelLayer

from . import _overload
from ._counting import count_sent
from ._masking import Masked
from ._options import options_of, refuse_unknown
from ._replay import CoreReplay
from ._settings import Settings
from .commands.bulk import GroupSendMany, Outcome, SendMany, collect
from .commands.census import without
from .exceptions import ForeignChannel
from .mailboxes.waiters import Entry, TaskWaiter, opened
from .runtime.engine import LoopEngine
from .sync import SyncChannelLayer
from .types import SendResult
from .wire.made_names import random_part

# Applications import all three from channels_redis.core.
__all__ = ["BaseChannelLayer", "ChannelFull", "RedisChannelLayer"]

Message = dict[str, Any]

_NOBODY: frozenset[bytes] = frozenset()


class RedisChannelLayer(CoreReplay):
    """A drop-in for `channels_redis.core.RedisChannelLayer`.

    The options are the incumbent's, and `refresh_groups` (keep living members beyond
    `group_expiry`), `command_timeout` (seconds), `max_message_size` (bytes),
    `confirm_sends` (False: a send waits for no answer), `prefetch` (how many
    messages a reader of a normal channel claims at a time), `liveness` (seconds: a
    process that is silent for so long is not counted) and `history` (what is kept of
    which groups). A wrong value raises `ValueError`, an unknown option `TypeError`.
    """

    def __init__(
        self,
        hosts: Any = None,
        prefix: str = "asgi",
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Any = None,
        symmetric_encryption_keys: Any = None,
        random_prefix_length: int = 12,
        serializer_format: str = "msgpack",
        *,
        encryption: str = "fernet",
        refresh_groups: bool = True,
        command_timeout: float = 5.0,
        max_message_size: int = 64 * 1024 * 1024,
        confirm_sends: bool = True,
        prefetch: int = 1,
        liveness: float = 15.0,
        history: Any = None,
        **unknown: Any,
    ) -> None:
        hosts = Masked(hosts)  # error reporters show variables
        symmetric_encryption_keys = Masked(symmetric_encryption_keys)
        refuse_unknown(unknown, _OPTIONS)
        settings = Settings(
            hosts=hosts,
            prefix=prefix,
            expiry=expiry,
            group_expiry=group_expiry,
            capacity=capacity,
            channel_capacity=channel_capacity,
            symmetric_encryption_keys=symmetric_encryption_keys,
            encryption=encryption,
            random_prefix_length=random_prefix_length,
            serializer_format=serializer_format,
            refresh_groups=bool(refresh_groups),
            command_timeout=command_timeout,
            max_message_size=max_message_size,
            confirm_sends=confirm_sends,
            prefetch=prefetch,
            liveness=liveness,
            history=history,
        )
        super().__init__(settings)
        self.prefetch = settings.prefetch
        self.sync = SyncChannelLayer(self)

    # The channel layer API

    async def send(self, channel: str, message: Message) -> None:
        """Sends a message to a channel; raises `ChannelFull` at capacity.

        Raises `TypeError` for a bad name or message, and redis-py's
        `ConnectionError` when it is not known whether the message was taken. Without
        `confirm_sends` it returns when the message is in a connection's buffer.
        """
        non_local = self._non_local(channel)
        engine = self._loops.engine_for_call() or self._inline()
        began = (
            0.0 if self._clock is None else await self._learn_clock(engine, non_local)
        )
        request = self._operations.send(channel, non_local, message)
        self._sent(channel, await engine.send(request, began))
        next(self._messages.to_channels)

    async def receive(self, channel: str) -> Message:
        """The next message of a channel, however long it takes; cancelling loses none.

        Raises `TypeError` for a bad name or another process's channel.
        """
        mailboxes = self._mailboxes
        while (
            not isinstance(channel, str) or (found := mailboxes.begin(channel)) is None
        ):
            non_local = self._non_local(channel)
            if not non_local.endswith("!"):
                return await self._receive_normal(channel)
            if not non_local.endswith(f"{self.client_prefix}!"):
                raise ForeignChannel(f"{channel!r} is another process's channel")
            mailboxes.open(channel)
        return opened(found if isinstance(found, tuple) else await found)

    def _begin_receive(self, channel: str, loop: Any) -> Entry | TaskWaiter | None:
        """For consumers.py: an entry, what to await for it, or None: call `receive`."""
        return self._mailboxes.begin(channel, loop)

    async def new_channel(self, prefix: str = "specific") -> str:
        """A name for a channel of this process; it lives as long as the name object.

        A copy of the name keeps working while somebody waits on it, and for `expiry`
        seconds after.
        """
        name = f"{prefix}.{self.client_prefix}!{random_part()}"
        self._non_local(name)
        if not self._loops.engine_for_call():  # a loop sweeps away what ended
            self._tidy()
        return self._mailboxes.new(name)

    # The groups extension

    async def group_add(self, group: str, channel: str) -> None:
        """Adds a channel to a group for `group_expiry` seconds, or anew."""
        self.require_valid_group_name(group)
        self._non_local(channel)
        request = self._operations.join(group, channel)
        engine = self._engine()
        with self._joining(group, channel):
            await engine.run(request)

    async def group_discard(self, group: str, channel: str) -> None:
        """Takes a channel out of a group; no error when it isn't in it."""
        self.require_valid_group_name(group)
        self._non_local(channel)
        request = self._operations.leave(group, channel)
        engine = self._engine()
        with self._memberships.leaving(group, channel):
            await engine.run(request)

    async def group_send(
        self, group: str, message: Message, *, exclude: str | Iterable[str] = ()
    ) -> SendResult | None:
        """Sends a message to every member of a group; full ones miss it (logged).

        Not to the channels that `exclude` names. Without `confirm_sends` it returns
        None. Raises what `send` does, but for `ChannelFull`.
        """
        self.require_valid_group_name(group)
        excluded = self._encoded(exclude) if exclude != () else _NOBODY
        operations = self._operations
        engine = self._loops.engine_for_call() or self._inline()
        if (history := self._history) is not None and history.has(group):
            names = [name.decode() for name in excluded]
            return await self._append(engine, history, group, message, names)
        body = operations.codec.body(message)
        request, began = operations.members(group), monotonic()
        members = await engine.ask_members(request, body, began, excluded)
        if not members:
            next(self._messages.to_groups)
            return None if members is None else SendResult(0, 0, 0)
        members = operations.note_members(request, members)
        if excluded:
            members = without(members, excluded)
        requests = operations.deliveries(members, body)
        replies = await engine.run_all(requests, began)
        if _overload.listener is not None:
            self._note_delivered(requests, replies)
        result = operations.delivered(group, len(members), replies)
        next(self._messages.to_groups)
        return result

    # Many at once

    async def send_many(self, messages: Iterable[tuple[str, Message]]) -> list[Outcome]:
        """Sends (channel, message) pairs together, each channel's in their order.

        Returns for each None, or the exception that `send` would have raised.
        """
        work = SendMany(self._operations, messages)

        def add(number: int, channel: str, message: Message) -> None:
            work.store(number, channel, self._non_local(channel), message)

        engine = self._engine()
        began = await self._collect(engine, work, add)
        outcomes = await engine.send_many(work, began)
        return count_sent(self._messages.to_channels, outcomes)

    async def group_send_many(
        self, messages: Iterable[tuple[str, Message]]
    ) -> list[Outcome]:
        """Sends (group, message) pairs together, each group's in their order.

        Returns for each None, or the exception that `group_send` would have raised.
        """
        if self._history is not None:
            return await self._append_many(messages)
        return await self._group_send_many(messages)

    async def _group_send_many(self, messages: Iterable[Any]) -> list[Outcome]:
        work = GroupSendMany(self._operations, messages)

        def add(number: int, group: str, message: Message) -> None:
            self.require_valid_group_name(group)
            work.add(number, group, message, check=not self.confirm_sends)

        collect(work, add)
        engine = self._engine()
        outcomes = await engine.group_send_many(work)
        return count_sent(self._messages.to_groups, outcomes)

    # The flush extension

    async def flush(self) -> None:
        """Deletes every message and group, in Redis and here; channels go on."""
        await self.flush_sends()
        self._loops.for_each(LoopEngine.forget_claimed)
        pattern = self._operations.flush_pattern()
        await self._engine().unlink(pattern)
        self._mailboxes.clear()
        self._memberships.clear()
        if self._replays is not None:
            self._replays.clear()

    # What applications of channels_redis also use

    async def close_pools(self) -> None:
        """Closes the running loop's connections; the next call opens new ones.

        Where calls block, as in `async_to_sync`, those that they left are closed.
        """
        await super().close_pools()
        for inbox in self._mailboxes.owners.inboxes():
            self._offer(inbox)

    async def wait_received(self) -> None:
        """Nothing to wait for: a message is received when `receive` returned it."""

    def connection(self, index: int) -> Any:
        """A redis-py client of shard `index` for the running loop, closed with it."""
        if not 0 <= index < self.ring_size:
            raise ValueError(
                f"There are only {self.ring_size} hosts - you asked for {index}!"
            )
        return self._loops.engine().shards[index].client()

    @property
    def receive_buffer(self) -> Mapping[str, tuple[Message, ...]]:
        """What waits in this process to be received, by channel; a snapshot."""
        return self._mailboxes.snapshot()


_OPTIONS = options_of(RedisChannelLayer)
