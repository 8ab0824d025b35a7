"""What both layers have: settings, parts in each event loop, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from redis.exceptions import RedisError

from ._counting import Messages
from ._hooks import LayerHooks, refuse_overrides
from ._masking import Masked
from ._overlaps import forget_layer, note_layer
from ._overload import FillWatch
from ._settings import Settings
from .client.blocking_shards import BlockingShards
from .client.clock import clock_of
from .client.hosts import decode_hosts
from .commands.bulk import SendMany, collect
from .commands.operations import Operations
from .mailboxes.delivery import Delivery
from .mailboxes.dropped import DropCounters
from .mailboxes.mailbox import MailboxGroup
from .mailboxes.registry import LocalChannels
from .polling.normal_channel import ReaderClosed
from .runtime.base_engine import Engine
from .runtime.engine import LoopEngine
from .runtime.heartbeat import Heartbeat
from .runtime.loops import LoopRegistry, may_block, weakly
from .runtime.memberships import Memberships
from .runtime.unconfirmed_engine import UnconfirmedEngine
from .wire.made_names import random_part

# What the parts of a layer were made with: a change later would not reach them.
_FIXED = frozenset(
    (
        *("capacity", "channel_capacity", "command_timeout", "confirm_sends", "expiry"),
        *("group_expiry", "history", "liveness", "max_message_size", "normal_channels"),
        *("prefetch", "prefix", "refresh_groups", "ring_size", "sharded_pubsub"),
    )
)


class BaseRedisLayer(LayerHooks):
    """A layer's settings, its parts in each event loop, and how it ends."""

    extensions = ["groups", "flush"]

    _loops: LoopRegistry[Any]  # of what the layer has in an event loop
    _blocking: BlockingShards
    _mailboxes: LocalChannels
    _operations: Operations
    _delivery: Delivery
    _heartbeat: Heartbeat
    _arguments: Masked[tuple[tuple[Any, ...], dict[str, Any]]]

    def __new__(cls, *args: Any, **options: Any) -> BaseRedisLayer:
        """Notes the arguments, of which `pickle` and `copy` make another one."""
        layer: BaseRedisLayer = super().__new__(cls)
        layer._arguments = Masked((args, options))
        return layer

    def __init__(self, settings: Settings) -> None:
        refuse_overrides(type(self))
        self.prefix = settings.prefix
        self.expiry, self.group_expiry = settings.expiry, settings.group_expiry
        self.refresh_groups = settings.refresh_groups
        self.command_timeout = settings.command_timeout
        self.max_message_size = settings.max_message_size
        self.confirm_sends = settings.confirm_sends
        self.history = settings.history
        self.liveness = settings.liveness
        self._hosts = decode_hosts(settings.hosts, settings.command_timeout)
        self.ring_size = len(self._hosts)
        self._messages = Messages()
        self._fills = FillWatch()
        super().__init__(settings)
        self._counters = DropCounters()
        serializers = [self._serializer, self._normal_serializer]
        self._clock = clock_of(serializers, self._hosts)
        note_layer(self)

    def __str__(self) -> str:
        hosts = ", ".join(map(str, self._hosts))
        return f"{type(self).__name__}(hosts=[{hosts}])"

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute; raises `AttributeError` for a setting that it has."""
        if name in _FIXED and name in vars(self):
            text = f"{name} can't be changed: make a layer with {name}={value!r}"
            raise AttributeError(text)
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (type(self), *self._arguments.value)

    def __deepcopy__(self, memo: Any) -> BaseRedisLayer:
        # The settings are shared: a credential provider may hold a lock.
        return _make(type(self), *self._arguments.value)

    @property
    def hosts(self) -> list[dict[str, Any]]:
        """The entries of `hosts`, as dicts of connection arguments; a copy."""
        return [host.settings for host in self._hosts]

    @property
    def counters(self) -> dict[str, int]:
        """How many messages were dropped, by reason, in this process."""
        return self._counters.snapshot()

    async def flush_sends(self) -> None:
        """Returns when all that this event loop sent is answered.

        Only `confirm_sends=False` leaves something to wait for. Raises nothing: what
        failed is in `counters`. It takes no longer than the commands may.
        """
        local = self._loops.existing()
        if local is not None:
            await local.flush_sends()

    async def close_pools(self) -> None:
        """Closes the running loop's connections; the next call opens new ones.

        It goes on in the background when its caller is cancelled.
        Where calls block, as in `async_to_sync`, those that they left are closed.
        """
        forget_layer(self)
        if may_block():
            self._blocking.close()
        await self._loops.close_here()

    # For the layers

    def _make_loops(self) -> LoopRegistry[Any]:
        """What this layer has in each event loop; it ends when the layer is collected.

        So nothing in it refers to the layer, but for hooks that a subclass overrides.
        """
        loops: LoopRegistry[Any] = LoopRegistry(
            weakly(self._make_local), weakly(self._begin), weakly(self._abandon)
        )
        loops.end_with(self)
        return loops

    def _make_local(self) -> Any:
        raise NotImplementedError

    def _engine(self) -> Engine:
        """What runs the commands of this call."""
        raise NotImplementedError

    def _make_engine(
        self, memberships: Memberships, offer: Callable[[MailboxGroup], None]
    ) -> LoopEngine:
        kind = LoopEngine if self.confirm_sends else UnconfirmedEngine
        engine = kind(
            self._settings,
            hosts=self._hosts,
            operations=self._operations,
            mailboxes=self._mailboxes,
            memberships=memberships,
            delivery=self._delivery,
            offer=offer,
        )
        self._heartbeat.attach(engine)
        return engine

    def _begin(self) -> None:
        """The state of this process; anew after a fork."""
        self.client_prefix = random_part()
        self._counters.begin()
        self._messages.begin()
        for host in self._hosts:
            host.traffic.begin()
        if self._clock is not None:
            self._clock.begin()

    def _abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        self._mailboxes.abandon(loop)

    def _tidy(self) -> None:
        """What is due by the clock, for callers that block."""

    async def _receive_normal(self, channel: str) -> dict[str, Any]:
        """The next message of a normal channel, whatever pools are closed meanwhile."""
        while True:
            try:
                receiving = self._loops.engine().receive(channel)
                message: dict[str, Any] = await receiving
            except ReaderClosed:
                continue
            return message

    async def _learn_clock(self, engine: Engine, name: str) -> float:
        """Before messages are stamped, of which one is for a key of this name.

        When their call began (`time.monotonic()`), if that is any time ago; else 0.
        """
        if (clock := self._clock) is None or clock.is_settled:
            return 0.0
        began, index = monotonic(), self._operations.shard_of(name)

        def ask() -> Awaitable[Any]:
            return engine.run((index, self._operations.count(name)), began)

        await clock.learn((engine, index), ask)
        return began

    async def _collect(
        self, engine: Engine, work: SendMany, add: Callable[[int, Any, Any], None]
    ) -> float:
        """Has each pair of a `send_many` added; returns what `_learn_clock` does."""
        began = 0.0  # without a connection each pair fails
        names = (pair[0] for pair in work.pairs if isinstance(pair, (tuple, list)))
        try:
            began = await self._learn_clock(engine, str(next(names, "")))
        except RedisError as error:
            work.outcomes[:] = [error for _ in work.pairs]
        else:
            collect(work, add)
        return began


def _make(
    cls: type[BaseRedisLayer], args: tuple[Any, ...], options: dict[str, Any]
) -> BaseRedisLayer:
    return cls(*args, **options)
