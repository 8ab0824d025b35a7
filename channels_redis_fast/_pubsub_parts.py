"""What a Pub/Sub layer has in this process: subscriptions, mailboxes, publishers."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import Callable
from typing import Any

from ._history_parts import HistoryParts
from ._hooks import key_after, serializer_for
from ._liveness import PubSubLiveness
from ._observing import Observing
from ._settings import HistoryTable, Settings
from .client.blocking_shards import BlockingShards
from .client.host_verbs import HostVerbs
from .commands.history import HistoryCommands
from .mailboxes.registry import LocalChannels
from .runtime.base_engine import Engine
from .runtime.engine import LoopEngine
from .runtime.loops import weakly
from .runtime.membership_timers import MembershipTimers
from .runtime.memberships import Memberships
from .runtime.publisher import Publisher
from .subscriptions.loop import LoopSubscriptions
from .subscriptions.outage import OutageNotifier
from .subscriptions.placement import Placement
from .subscriptions.recovering import Recovering
from .subscriptions.registry import SubscriptionRegistry
from .subscriptions.subscriber import Subscriber
from .subscriptions.table import SubscriptionTable
from .wire._framing import UniqueBytes
from .wire.codec import Codec, SerializerCodec, codec_of
from .wire.formats import BaseMessageSerializer
from .wire.placed import PlacedCodec, parts_for

_GROUP = "__group__"


class PubSubParts(HistoryParts, Observing, PubSubLiveness):
    """Makes the parts of a Pub/Sub layer, anew after a fork, and keeps names heard."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.on_disconnect = settings.on_disconnect
        self.on_reconnect = settings.on_reconnect
        self.normal_channels = settings.normal_channels
        self.prefetch = settings.prefetch
        self.sharded_pubsub = settings.sharded_pubsub
        self._groups_begin = f"{self.prefix}{_GROUP}"
        self._group_name = self._groups_begin.__add__  # a group's at Redis
        if self._histories is not None:
            self._history = self._make_history(self._histories)
        self._normal_codec = self._make_normal_codec()
        self._operations = self._make_operations(
            self._normal_codec, functools.partial(key_after, self._groups_begin)
        )
        self._loops = self._make_loops()
        self._blocking = BlockingShards(self._hosts, lambda *about: None)
        self._verbs = [HostVerbs(host, self.sharded_pubsub) for host in self._hosts]
        self._has_clusters = any(verbs.is_cluster for verbs in self._verbs)
        self._begin()

    def _make_history(self, table: HistoryTable) -> HistoryCommands:
        begin, limit = self._groups_begin.encode(), self._size_limit

        def group_of(name: bytes) -> str | None:
            is_one = name.startswith(begin)
            return name[len(begin) :].decode() if is_one else None

        is_ours = not self._is_overridden("serialize", "deserialize")
        parts = parts_for(self._serializer, is_ours)
        self._codec = codec = PlacedCodec(self._codec, limit, parts, group_of)
        name_of = functools.partial(key_after, self._groups_begin)
        shard_of, group_name = self._shard_of(), self._group_name

        def shard_of_group(group: str) -> int:
            return shard_of(group_name(group))

        return HistoryCommands(table, self.prefix, codec, name_of, shard_of_group)

    def _make_serializer(self, settings: Settings) -> Any:
        """The one for payloads: no unique bytes, no limit of age."""
        serializer = serializer_for(settings)
        is_ours = isinstance(serializer, BaseMessageSerializer)
        self._normal_serializer = is_ours and super()._make_serializer(settings)
        return serializer

    def _make_normal_codec(self) -> Codec:
        """As core's codec: unique bytes first, and tokens have a limit of age."""
        serializer, limit = self._normal_serializer, self._size_limit
        if not serializer or self._is_overridden("serialize", "deserialize"):
            length = self._settings.random_prefix_length
            unique = UniqueBytes(length)
            return SerializerCodec(
                lambda message, key: unique.next() + self.serialize(message),
                lambda member, key: self.deserialize(member[length:]),
                limit,
            )
        return codec_of(serializer, limit)

    def _begin(self) -> None:
        """The state of this process; anew after a fork."""
        super()._begin()
        memberships = Memberships(self._operations, self.group_expiry, False)
        self._memberships = memberships  # none: Redis has no groups of Pub/Sub
        self._heartbeat = self._make_heartbeat(memberships)
        for verbs in self._verbs:
            verbs.begin()
        self._origin = uuid.uuid4().hex  # tells own notices from others'
        tell = weakly(self._tell)
        self._outage = OutageNotifier(
            lambda: tell("on_disconnect"), lambda: tell("on_reconnect")
        )
        term = None if self.refresh_groups else self.group_expiry
        self._terms = MembershipTimers(term, lambda *which: subscriptions.leave(*which))
        self._table = SubscriptionTable(on_leave=self._left())
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
        cleared = weakly(self._cleared)
        self._begin_delivery(self._codec, cleared, lambda local: local.engine)

    def _left(self) -> Callable[[bytes, str], None]:
        """What is told each name and channel whose ways part."""
        return self._terms.forget if self._history is None else weakly(self._leave)

    def _leave(self, name: bytes, channel: str) -> None:
        self._terms.forget(name, channel)
        begin = self._groups_begin.encode()
        if self._replays is not None and name.startswith(begin):
            self._replays.leave(name[len(begin) :].decode(), channel)

    def _back(self, engine: LoopEngine) -> Callable[[Subscriber], None]:
        """What is told each subscriber that is up; first all ask what they missed."""
        begin, replays = self._groups_begin.encode(), self._replays
        if replays is None:
            return self._outage.back

        async def recover(names: list[bytes]) -> None:
            groups = [n[len(begin) :].decode() for n in names if n.startswith(begin)]
            await replays.catch_up(engine, groups)

        return Recovering(engine, self._outage, recover).back

    def _publisher(self) -> Publisher:
        """What publishes for this call: its event loop's, or one that blocks."""
        local: LoopSubscriptions | None = self._loops.engine_for_call()
        if local is not None:
            publisher: Publisher = local.publisher
            return publisher
        self._tidy()
        return Publisher(self._blocking_engine(), self._operations, self._verbs)

    def _engine(self) -> Engine:
        return self._publisher().engine

    def _tidy(self) -> None:
        self._beat_when_due()

    def _make_local(self) -> LoopSubscriptions:
        engine = self._make_engine(self._memberships, lambda inbox: None)
        engine.on_tick.append(weakly(self._tick))
        table, operations = self._table, self._operations
        return LoopSubscriptions(
            engine,
            Publisher(engine, operations, self._verbs),
            table,
            self._delivery,
            functools.partial(
                Placement,
                engine,
                operations.shard_of,
                self._verbs,
                self._outage,
                self._back(engine),
            ),
            self.command_timeout,
            on_end=weakly(self._offer),
        )

    def _joined(self) -> tuple[int, int]:
        return self._table.memberships, len(self._table)

    def _subscribers_up(self) -> dict[str, bool]:
        up: dict[str, bool] = {}
        for local in self._loops.all():
            for one in list(local.placement.subscribers.values()):
                if one.names:
                    host = str(one.shard.host_at(one.node))
                    up[host] = up.get(host, True) and one.is_up
        return up

    def _tell(self, option: str) -> None:
        """Gives every channel of this process a message of the type that it says."""
        if (kind := getattr(self, option)) is not None:
            message, here = {"type": kind}, asyncio._get_running_loop()
            names = self._mailboxes.names()
            self._mailboxes.put(None, names, message, message.copy, here)

    def _cleared(self, origin: object, name: bytes) -> None:
        """Somebody cleared a group: its channels of this process leave it.

        If that was this layer, they did already, and may have joined again.
        """
        is_group = name.startswith(self._groups_begin.encode())
        if is_group and origin != self._origin:
            self._subscriptions.drop(name)

    def _offer(self) -> None:
        """Lets a loop in which somebody waits listen to what nobody listens to."""
        owners = self._mailboxes.owners
        for inbox in owners.inboxes():
            loops = owners.waiting_loops(inbox)
            self._loops.call_in(loops, self._subscriptions.claim)

    def _tick(self) -> None:
        """Ends memberships; listens here to what other loops listen to no more."""
        self._terms.end_due()
        if not self._table.has_orphans():
            return
        here, owners = asyncio.get_running_loop(), self._mailboxes.owners
        if any(here in owners.waiting_loops(inbox) for inbox in owners.inboxes()):
            self._subscriptions.claim()
