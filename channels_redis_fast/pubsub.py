"""The Pub/Sub channel layer: what nobody waits for is gone, and all else is fast."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import Iterable
from typing import Any

from channels.exceptions import ChannelFull
from channels.layers import BaseChannelLayer

from ._base import BaseRedisLayer, key_after
from ._masking import Masked
from ._settings import check_choice, check_message_type, options_of, refuse_unknown
from .client.blocking_shard import Blocking
from .client.host_verbs import HostVerbs
from .commands.bulk import Outcome, SendMany, collect
from .commands.operations import Operations
from .exceptions import ForeignChannel, InvalidName
from .mailboxes.registry import LocalChannels
from .mailboxes.waiters import Entry, TaskWaiter, opened
from .runtime.blocking_engine import BlockingEngine
from .runtime.engine import LoopEngine
from .runtime.loops import may_block, weakly
from .runtime.membership_timers import MembershipTimers
from .runtime.memberships import Memberships
from .runtime.publisher import Publisher
from .subscriptions.delivery import Delivery
from .subscriptions.loop import LoopSubscriptions
from .subscriptions.outage import OutageNotifier
from .subscriptions.placement import Placement
from .subscriptions.registry import SubscriptionRegistry
from .subscriptions.table import SubscriptionTable
from .sync import SyncPubSubChannelLayer
from .wire._framing import UniqueBytes
from .wire.codec import Codec, Message, SerializerCodec, codec_of
from .wire.formats import BaseMessageSerializer, serializer_of
from .wire.made_names import is_made_elsewhere, is_made_here

__all__ = ["BaseChannelLayer", "ChannelFull", "RedisPubSubChannelLayer"]

_UNIQUE = 12  # bytes in front of what goes through core's sorted sets
_GROUP = "__group__"
_REMEMBERED = 1024  # names


class RedisPubSubChannelLayer(BaseRedisLayer):
    """A drop-in for `channels_redis.pubsub.RedisPubSubChannelLayer`.

    The options are the incumbent's, and: `capacity`, `channel_capacity` and `expiry`
    bound what waits unread in this process; memberships last as long as their channels,
    or with `refresh_groups=False` for `group_expiry`; `normal_channels` ("single": each
    message of a channel that `new_channel` didn't make goes to one reader, by core's
    sorted sets; "broadcast": to all that read then, as the incumbent's);
    `sharded_pubsub` (on a Cluster of Redis 7 or later); `command_timeout` (s),
    `max_message_size`, `confirm_sends` and what is raised: as the core layer's.
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
        **unknown: Any,
    ) -> None:
        hosts = Masked(hosts)  # error reporters show variables
        symmetric_encryption_keys = Masked(symmetric_encryption_keys)
        refuse_unknown(unknown, _OPTIONS)
        self.on_disconnect = check_message_type("on_disconnect", on_disconnect)
        self.on_reconnect = check_message_type("on_reconnect", on_reconnect)
        self.normal_channels = check_choice(
            "normal_channels", normal_channels, ("single", "broadcast")
        )
        self.sharded_pubsub = bool(sharded_pubsub)
        self.refresh_groups = bool(refresh_groups)
        super().__init__(
            hosts=hosts,
            prefix=prefix,
            expiry=expiry,
            group_expiry=group_expiry,
            capacity=capacity,
            channel_capacity=channel_capacity,
            symmetric_encryption_keys=symmetric_encryption_keys,
            encryption=encryption,
            random_prefix_length=_UNIQUE,
            serializer_format=serializer_format,
            command_timeout=command_timeout,
            max_message_size=max_message_size,
            confirm_sends=confirm_sends,
        )
        self._groups_begin = f"{self.prefix}{_GROUP}"
        self._published: dict[str, bool] = {}  # names that were checked
        self._normal_codec = self._make_normal_codec()
        self._operations = Operations(
            prefix=self.prefix,
            expiry=self.expiry,
            group_expiry=self.group_expiry,
            capacity_of=self._capacity_of(),
            codec=self._normal_codec,
            ring_size=self.ring_size,
            shard_of=self._shard_of(),
            group_key=functools.partial(key_after, self._groups_begin),
        )
        self._loops = self._make_loops()
        self._blocking = Blocking(self._hosts, lambda *about: None)
        self._verbs = [HostVerbs(host, self.sharded_pubsub) for host in self._hosts]
        self._begin()
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
            began = await self._learn_clock(engine, channel)
            reply = await self._store(engine, channel, channel, message, began)
            self._operations.sent(channel, reply)

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
                return await self._receive_normal(channel, self._normal_codec)
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
        await self._subscriptions.join(name.encode(), name, b"")
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

    async def group_send(self, group: str, message: Message) -> None:
        """Sends a message to every member of a group."""
        self.require_valid_group_name(group)
        name = self._group_name(group)
        await self._publisher().publish(name, self._payload(name, message))

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
        return await publisher.send_all(work, began)

    async def group_send_many(
        self, messages: Iterable[tuple[str, Message]]
    ) -> list[Outcome]:
        """As `group_send` for (group, message) pairs; None or its error for each."""
        publisher = self._publisher()
        work = SendMany(self._operations, messages)

        def add(number: int, group: str, message: Message) -> None:
            self.require_valid_group_name(group)
            name = self._group_name(group)
            work.publish(number, name, self._payload(name, message))

        collect(work, add)
        return await publisher.send_all(work)

    # The flush extension

    async def flush(self) -> None:
        """Drops every message and group of this process; channels go on.

        What waits on normal channels is deleted in Redis. Closes the running loop's
        connections and subscribes the channels over new ones.
        """
        await self.flush_sends()
        for name in self._table.names():
            if name.startswith(self._groups_begin.encode()):
                self._subscriptions.drop(name)
        self._mailboxes.clear()
        if self.normal_channels == "single":
            engine = self._publisher().engine
            await engine.unlink(self._operations.flush_pattern())
        await self.close_pools()
        if not may_block():
            await self._subscriptions.listen_all()

    # Names and payloads

    def _group_name(self, group: str) -> str:
        """The name of a group at Redis."""
        return f"{self._groups_begin}{group}"

    def _is_published(self, channel: Any) -> bool:
        """Checks a name; whether its messages are published, not stored.

        Those are names as `new_channel` makes them: this layer's prefix, any other,
        32 hexadecimal digits. The layer's own prefix is not part of what is checked.
        """
        known = self._published.get(channel) if isinstance(channel, str) else None
        if known is not None:
            return known
        published = self._classify(channel)
        if self._names_are_fast:  # else a subclass's rules may change
            if len(self._published) >= _REMEMBERED:
                self._published.clear()
            self._published[str(channel)] = published  # a copy keeps no channel alive
        return published

    def _classify(self, channel: Any) -> bool:
        ours = isinstance(channel, str) and is_made_here(channel, self.prefix)
        self._non_local(channel[len(self.prefix) :] if ours else channel)
        if channel.startswith(self._groups_begin):
            raise InvalidName(f"channel names can't begin as groups do: {channel!r}")
        return ours or self.normal_channels == "broadcast"

    def _payload(self, name: str, message: Message) -> bytes:
        return self._codec.seal(self._codec.body(message), None, name.encode())

    def _make_serializer(self, format: str, keys: Masked[Any], **options: Any) -> Any:
        """The one for payloads: no unique bytes, no limit of age."""
        shared = {k: v for k, v in options.items() if k == "encryption"}
        serializer = serializer_of(format, keys, **shared)
        is_ours = isinstance(serializer, BaseMessageSerializer)
        self._normal_serializer = is_ours and serializer_of(format, keys, **options)
        return serializer

    def _make_normal_codec(self) -> Codec:
        """As core's codec: unique bytes first, and tokens have a limit of age."""
        serializer, limit = self._normal_serializer, self._size_limit
        if not serializer or self._is_overridden("serialize", "deserialize"):
            unique = UniqueBytes(_UNIQUE)
            return SerializerCodec(
                lambda message, key: unique.next() + self.serialize(message),
                lambda member, key: self.deserialize(member[_UNIQUE:]),
                limit,
            )
        return codec_of(serializer, limit)

    def _begin(self) -> None:
        """The state of this process; anew after a fork."""
        super()._begin()
        tell = weakly(self._tell)
        self._outage = OutageNotifier(
            lambda: tell("on_disconnect"), lambda: tell("on_reconnect")
        )
        term = None if self.refresh_groups else self.group_expiry
        self._terms = MembershipTimers(term, lambda *which: subscriptions.leave(*which))
        self._table = SubscriptionTable(on_leave=self._terms.forget)
        self._subscriptions = subscriptions = SubscriptionRegistry(
            self._table, self._loops.engine, self.command_timeout
        )
        self._mailboxes = LocalChannels(
            expiry=self.expiry,
            capacity_of=self._capacity_of(),
            inbox_of=lambda name: "",
            counters=self._counters,
            on_wait=None,
            on_end=self._subscriptions.end,
        )

    def _publisher(self) -> Publisher:
        """What publishes for this call: its event loop's, or one that blocks."""
        local: LoopSubscriptions | None = self._loops.engine_for_call()
        if local is not None:
            publisher: Publisher = local.publisher
            return publisher
        engine = BlockingEngine(self._blocking, self.command_timeout)
        return Publisher(engine, self._operations, self._verbs)

    def _make_local(self) -> LoopSubscriptions:
        engine = self._make_engine()
        engine.on_tick.append(weakly(self._tick))
        table, operations = self._table, self._operations
        return LoopSubscriptions(
            engine,
            Publisher(engine, operations, self._verbs),
            table,
            Delivery(table, self._codec, self._mailboxes, self._counters),
            functools.partial(
                Placement, engine, operations.shard_of, self._verbs, self._outage
            ),
            self.command_timeout,
            on_end=weakly(self._offer),
        )

    def _make_engine(self) -> LoopEngine:
        return LoopEngine(
            hosts=self._hosts,
            operations=self._operations,
            mailboxes=self._mailboxes,
            memberships=Memberships(self._operations, self.group_expiry, False),
            counters=self._counters,
            expiry=self.expiry,
            group_expiry=self.group_expiry,
            command_timeout=self.command_timeout,
            offer=lambda inbox: None,
            confirm_sends=self.confirm_sends,
        )

    def _tell(self, option: str) -> None:
        """Gives every channel of this process a message of the type that it says."""
        if (kind := getattr(self, option)) is not None:
            message, here = {"type": kind}, asyncio._get_running_loop()
            names = self._mailboxes.names()
            self._mailboxes.put(None, names, message, message.copy, here)

    def _offer(self) -> None:
        """Lets a loop in which somebody waits listen to what nobody listens to."""
        for inbox in self._mailboxes.inboxes():
            loops = self._mailboxes.waiting_loops(inbox)
            self._loops.call_in(loops, self._subscriptions.claim)

    def _tick(self) -> None:
        """Ends memberships; listens here to what other loops listen to no more."""
        self._terms.end_due()
        if not self._table.has_orphans():
            return
        here = asyncio.get_running_loop()
        inboxes = self._mailboxes.inboxes()
        if any(here in self._mailboxes.waiting_loops(inbox) for inbox in inboxes):
            self._subscriptions.claim()


_OPTIONS = options_of(RedisPubSubChannelLayer)
