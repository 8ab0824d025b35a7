"""The Pub/Sub channel layer: what nobody waits for is gone, and all else is fast."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from channels.exceptions import ChannelFull
from channels.layers import BaseChannelLayer

from ._counting import count_sent
from ._masking import Masked
from ._options import options_of, refuse_unknown
from ._replay import PubSubReplay
from ._settings import Settings
from .commands.bulk import Outcome, SendMany, collect
from .commands.operations import send_result
from .exceptions import ForeignChannel
from .mailboxes.waiters import Entry, TaskWaiter, opened
from .runtime.loops import may_block
from .subscriptions.loop import LoopSubscriptions
from .sync import SyncPubSubChannelLayer
from .types import SendResult
from .wire.codec import Message
from .wire.made_names import is_made_elsewhere

__all__ = ["BaseChannelLayer", "ChannelFull", "RedisPubSubChannelLayer"]


class RedisPubSubChannelLayer(PubSubReplay):
    """A drop-in for `channels_redis.pubsub.RedisPubSubChannelLayer`.

    The options are the incumbent's, and: `capacity`, `channel_capacity` and `expiry`
    bound what waits unread in this process; memberships last as long as their channels,
    or with `refresh_groups=False` for `group_expiry`; `normal_channels` ("single": each
    message of a channel that `new_channel` didn't make goes to one reader, by core's
    sorted sets; "broadcast": to all that read then, as the incumbent's);
    `sharded_pubsub` (on a Cluster of Redis 7 or later); `command_timeout` (s),
    `max_message_size`, `confirm_sends`, `prefetch` (of normal channels that are
    "single"), `liveness`, `history` and what is raised: as the core layer's.
    """

    def __init__(
        self,
        hosts: Any = None,
        prefix: str = "asgi",
        on_disconnect: str | None = None,
        on_reconnect: str | None = None,
        symmetric_encryption_keys: Any = None,
        serializer_format: str = "msgpack",
        *,
        capacity: int = 100,
        channel_capacity: Any = None,
        expiry: float = 60,
        group_expiry: float = 86400,
        refresh_groups: bool = True,
        encryption: str = "fernet",
        normal_channels: str = "single",
        sharded_pubsub: bool = True,
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
            serializer_format=serializer_format,
            refresh_groups=bool(refresh_groups),
            command_timeout=command_timeout,
            max_message_size=max_message_size,
            confirm_sends=confirm_sends,
            prefetch=prefetch,
            liveness=liveness,
            on_disconnect=on_disconnect,
            on_reconnect=on_reconnect,
            normal_channels=normal_channels,
            sharded_pubsub=bool(sharded_pubsub),
            history=history,
        )
        super().__init__(settings)
        self.sync = SyncPubSubChannelLayer(self)

    # The channel layer API

    async def send(self, channel: str, message: Message) -> None:
        """Sends a message to a channel.

        A normal channel at capacity raises `ChannelFull`. Raises `TypeError` for a
        bad name or message, and redis-py's `ConnectionError` when it is not known
        whether the message was sent. Without `confirm_sends` it returns when the
        message is in a connection's buffer.
        """
        publisher = self._publisher()
        if self._is_published(channel):
            await publisher.publish(channel, self._payload(channel, message))
        else:
            engine = publisher.engine
            began = (
                0.0 if self._clock is None else await self._learn_clock(engine, channel)
            )
            request = self._operations.send(channel, channel, message)
            self._sent(channel, await engine.send(request, began))
        next(self._messages.to_channels)

    async def receive(self, channel: str) -> Message:
        """The next message of a channel, however long it takes; cancelling loses none.

        Raises `TypeError` for a bad name or one that another layer made.
        """
        mailboxes, held = self._mailboxes, channel
        # Who has a message is subscribed, also in a new event loop.
        while (
            not isinstance(channel, str)
            or (listens := self._table.loop_of(channel)) is None
            or (found := mailboxes.begin(held)) is None
        ):
            is_published = self._is_published(channel)
            if is_made_elsewhere(channel, self.prefix):
                raise ForeignChannel(f"{channel!r} is another layer's channel")
            if not is_published:
                return await self._receive_normal(channel)
            if channel not in mailboxes:
                held = mailboxes.new(channel)  # lives as long as this call
            await self._subscriptions.listen(channel)
        if isinstance(found, tuple):
            return opened(found)
        if found.loop is not listens:
            self._subscriptions.note_wait(found)
        return opened(await found)

    def _begin_receive(self, channel: str, loop: Any) -> Entry | TaskWaiter | None:
        """For consumers.py: an entry, what to await for it, or None: call `receive`."""
        if (listens := self._table.loop_of(channel)) is None:
            return None
        found = self._mailboxes.begin(channel, loop)
        if listens is not loop and isinstance(found, TaskWaiter):
            self._subscriptions.note_wait(found)
        return found

    async def new_channel(self, prefix: str = "specific.") -> str:
        """A name for a channel of this process; it lives as long as the name object.

        Returns when Redis has confirmed the subscription. A copy of the name keeps
        working while somebody waits on it, and for `expiry` seconds after.
        """
        name = f"{self.prefix}{prefix}{uuid.uuid4().hex}"
        self._is_published(name)
        held = self._mailboxes.new(name)
        try:
            await self._subscriptions.join(name.encode(), name, b"")
        except BaseException:
            self._mailboxes.end(name)  # nobody knows it
            raise
        return held

    # The groups extension

    async def group_add(self, group: str, channel: str) -> None:
        """Adds a channel of this process to a group; returns when it gets messages.

        Raises `RuntimeError` for a channel that this process doesn't hold.
        """
        self.require_valid_group_name(group)
        self._is_published(channel)
        if channel not in self._mailboxes:
            raise RuntimeError(
                f"{channel!r} can't join group {group!r}: no channel of this process. "
                "Pub/Sub channels join from the process that made them by "
                "new_channel() and still holds the name; in a consumer: "
                f"await self.channel_layer.group_add({group!r}, self.channel_name)"
            )
        name = self._group_name(group).encode()
        await self._subscriptions.join(name, str(channel), channel.encode())
        self._terms.begin(name, str(channel))

    async def group_discard(self, group: str, channel: str) -> None:
        """Takes a channel out of a group; no error when it isn't in it."""
        self.require_valid_group_name(group)
        self._is_published(channel)
        self._subscriptions.leave(self._group_name(group).encode(), channel)

    async def group_send(
        self, group: str, message: Message, *, exclude: str | Iterable[str] = ()
    ) -> SendResult | None:
        """Sends a message to every member of a group.

        Not to the channels that `exclude` names. Without `confirm_sends` it returns
        None. Raises what `send` does.
        """
        self.require_valid_group_name(group)
        name, publisher = self._group_name(group), self._publisher()
        if self._history is not None and (
            append := self._kept(group, message, exclude)
        ):
            result = await publisher.append(name, append)
            next(self._messages.to_groups)
            return result
        if exclude == ():
            payload = self._payload(name, message)
        else:
            payload = self._payload_but_for(name, message, self._names(exclude))
        reply = await publisher.publish(name, payload)
        next(self._messages.to_groups)
        if reply is None or self._has_clusters:
            return publisher.result(name, reply)
        return send_result(None, reply, 0)

    # Many at once

    async def send_many(self, messages: Iterable[tuple[str, Message]]) -> list[Outcome]:
        """As `send` for (channel, message) pairs; None or its error for each."""
        publisher = self._publisher()
        work = SendMany(self._operations, messages)

        def add(number: int, channel: str, message: Message) -> None:
            if self._is_published(channel):
                work.publish(number, channel, self._payload(channel, message))
            else:
                work.store(number, channel, channel, message)

        began = await self._collect(publisher.engine, work, add)
        outcomes = await publisher.send_all(work, began)
        return count_sent(self._messages.to_channels, outcomes)

    async def group_send_many(
        self, messages: Iterable[tuple[str, Message]]
    ) -> list[Outcome]:
        """As `group_send` for (group, message) pairs; None or its error for each."""
        publisher = self._publisher()
        work = SendMany(self._operations, messages)

        def add(number: int, group: str, message: Message) -> None:
            self.require_valid_group_name(group)
            name = self._group_name(group)
            payload = self._kept(group, message) or self._payload(name, message)
            work.publish(number, name, payload)

        collect(work, add)
        outcomes = await publisher.send_all(work)
        return count_sent(self._messages.to_groups, outcomes)

    # The flush extension

    async def flush(self) -> None:
        """Drops every message and group of this process; channels go on.

        What waits on normal channels is deleted in Redis. Closes the running loop's
        connections and subscribes the channels over new ones.
        """
        await self.flush_sends()
        begin = self._groups_begin.encode()
        for name in self._table.names():
            if name.startswith(begin):
                self._subscriptions.drop(name)
        self._mailboxes.clear()
        if self.normal_channels == "single" or self._history is not None:
            self._loops.for_each(LoopSubscriptions.forget_claimed)
            engine = self._publisher().engine
            await engine.unlink(self._operations.flush_pattern())
        await self.close_pools()
        if not may_block():
            await self._subscriptions.listen_all()


_OPTIONS = options_of(RedisPubSubChannelLayer)
