"""What both layers do alike: names, settings, serialisers, hooks for subclasses."""

from __future__ import annotations

import asyncio
import functools
import re
import threading
import weakref
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from channels import exceptions
from channels.layers import BaseChannelLayer
from redis.exceptions import RedisError

from ._logs import warn
from ._masking import Masked
from ._settings import (
    LONGEST_TIMEOUT,
    capacity_table,
    check_choice,
    check_count,
    check_keys,
    check_prefix,
    check_seconds,
    check_switch,
)
from .client.blocking_shard import Blocking
from .client.clock import clock_of
from .client.hosts import decode_hosts
from .commands.bulk import SendMany, collect
from .commands.operations import Operations
from .exceptions import InvalidMessage, InvalidName
from .mailboxes.dropped import DropCounters
from .mailboxes.registry import LocalChannels
from .polling.normal_channel import ReaderClosed
from .runtime.loops import LoopRegistry, may_block, weakly
from .wire import _names
from .wire._hashing import shard_of
from .wire.codec import Codec, SerializerCodec, SizeLimit, codec_of
from .wire.formats import ENCRYPTIONS, serializer_of

_layers: weakref.WeakSet[BaseRedisLayer] = weakref.WeakSet()
_overlaps: set[tuple[str, str]] = set()  # of prefixes, that were told
_layers_lock = threading.Lock()

_STANDARD = ("channel_name_regex", "group_name_regex", "MAX_NAME_LENGTH")

# Methods of channels_redis's layers that these call, and ours don't.
_NEVER_CALLED = ("create_pool", "connection", "_get_layer", "_get_shard")

# What the parts of a layer were made with: a change later would not reach them.
_FIXED = frozenset(
    (
        *("capacity", "channel_capacity", "command_timeout", "confirm_sends", "expiry"),
        *("group_expiry", "max_message_size", "normal_channels", "prefetch", "prefix"),
        *("refresh_groups", "ring_size", "sharded_pubsub"),
    )
)


class MessageTooLarge(InvalidMessage, exceptions.MessageTooLarge):  # type: ignore[misc]
    """A message that is longer than `max_message_size`."""


def key_after(begin: str, name: str) -> bytes:
    """The key of a name: what all keys of its kind begin with, and the name."""
    return f"{begin}{name}".encode()


class BaseRedisLayer(BaseChannelLayer):  # type: ignore[misc]
    """Names, capacities and serialisation, with the hooks that subclasses override."""

    extensions = ["groups", "flush"]
    # A name is shorter: those of 100 bytes must do, the specification demands.
    MAX_NAME_LENGTH = 101
    invalid_name_error = (
        "{} name must be a valid unicode string with length < 101 containing only "
        "ASCII alphanumerics, hyphens, underscores, or periods."
    )
    ChannelFull = exceptions.ChannelFull
    MessageTooLarge = MessageTooLarge

    _loops: LoopRegistry[Any]  # of LoopEngine or a subclass
    _blocking: Blocking
    _mailboxes: LocalChannels
    _operations: Operations
    _normal_serializer: Any = None  # of normal channels, if they have their own
    _arguments: Masked[tuple[tuple[Any, ...], dict[str, Any]]]

    def __new__(cls, *args: Any, **options: Any) -> BaseRedisLayer:
        """Notes the arguments, of which `pickle` and `copy` make another one."""
        layer: BaseRedisLayer = super().__new__(cls)
        layer._arguments = Masked((args, options))
        return layer

    def __init__(
        self,
        *,
        hosts: Any,
        prefix: str,
        expiry: float,
        group_expiry: float,
        capacity: int,
        channel_capacity: Any,
        symmetric_encryption_keys: Any,
        encryption: str,
        random_prefix_length: int,
        serializer_format: str,
        command_timeout: float,
        max_message_size: int,
        confirm_sends: bool,
    ) -> None:
        self._refuse_overrides()
        self.prefix = check_prefix(prefix)
        check_seconds("expiry", expiry)
        check_seconds("group_expiry", group_expiry)
        self.expiry, self.group_expiry = expiry, group_expiry
        self.command_timeout = check_seconds(
            "command_timeout", command_timeout, LONGEST_TIMEOUT
        )
        self.max_message_size = check_count("max_message_size", max_message_size, 1)
        self.confirm_sends = check_switch("confirm_sends", confirm_sends)
        # Below 0 means none, as it does to channels_redis.
        unique = max(0, check_count("random_prefix_length", random_prefix_length, None))
        check_keys(symmetric_encryption_keys.value)
        check_choice("encryption", encryption, ENCRYPTIONS)
        self._capacities = capacity_table(capacity, channel_capacity)
        self.capacity = capacity
        self.channel_capacity = self.compile_capacities(channel_capacity or {})
        self._hosts = decode_hosts(hosts, self.command_timeout)
        self.ring_size = len(self._hosts)
        self._size_limit = SizeLimit(self.max_message_size, MessageTooLarge)
        self._counters = DropCounters()
        self._serializer = self._make_serializer(
            serializer_format,
            symmetric_encryption_keys,
            random_prefix_length=unique,
            expiry=expiry,
            # Whole classes of others don't know this one.
            **({} if encryption == "fernet" else {"encryption": encryption}),
        )
        self._codec = self._make_codec()
        serializers = [self._serializer, self._normal_serializer]
        self._clock = clock_of(serializers, self._hosts)
        self._names_are_standard = not self._is_overridden(*_STANDARD)
        self._warn_of_overlap()
        self._names_are_fast = self._names_are_standard and not self._is_overridden(
            "require_valid_channel_name"
        )

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
        """How many messages were dropped, by reason, since the layer was made."""
        return self._counters.snapshot()

    async def flush_sends(self) -> None:
        """Returns when all that this event loop sent is answered.

        Only `confirm_sends=False` leaves something to wait for. Raises nothing: what
        failed is in `counters`. It takes no longer than the commands may.
        """
        local = self._loops.existing()
        if local is not None and local.outbox is not None:
            await local.outbox.settled()

    async def close_pools(self) -> None:
        """Closes the running loop's connections; the next call opens new ones.

        It goes on in the background when its caller is cancelled.
        Where calls block, as in `async_to_sync`, those that they left are closed.
        """
        with _layers_lock:
            _layers.discard(self)
        if may_block():
            self._blocking.close()
        await self._loops.close_here()

    # Hooks for subclasses

    def serialize(self, message: dict[str, Any]) -> bytes:
        """The message as bytes; may be overridden together with `deserialize`."""
        serialized: bytes = self._serializer.serialize(message)
        return serialized

    def deserialize(self, message: bytes) -> dict[str, Any]:
        """The message that `serialize` made bytes of."""
        found: dict[str, Any] = self._serializer.deserialize(message)
        return found

    def consistent_hash(self, value: str | bytes) -> int:
        """The index of the shard for a name."""
        return shard_of(value, self.ring_size)

    def get_capacity(self, channel: str) -> int:
        """A channel's capacity (messages): the first rule that matches."""
        return self._capacities.lookup(channel)

    def require_valid_channel_name(self, name: Any, receive: bool = False) -> bool:
        """True for a valid channel name; raises `TypeError` for others.

        With `receive`, a process-local name must end at its `!`.
        """
        if self._names_are_standard:
            _names.non_local_name(name)
        elif not self._matches(self.channel_name_regex, name):
            raise self._invalid("Channel", name)
        if receive and "!" in name and not name.endswith("!"):
            raise InvalidName(
                f"Specific channel names in receive() must end at the !, not {name!r}"
            )
        return True

    def require_valid_group_name(self, name: Any) -> bool:
        """True for a valid group name; raises `TypeError` for others."""
        if self._names_are_standard:
            _names.check_group(name)
        elif not self._matches(self.group_name_regex, name):
            raise self._invalid("Group", name)
        return True

    # For the layers

    def _refuse_overrides(self) -> None:
        for name in _NEVER_CALLED:
            owner = next((c for c in type(self).__mro__ if name in vars(c)), None)
            if owner and not owner.__module__.startswith("channels_redis_fast."):
                raise TypeError(
                    f"{owner.__qualname__}.{name} would never be called: say how to "
                    "connect by an entry of `hosts` and a `credential_provider` in it"
                )

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

    def _begin(self) -> None:
        """The state of this process; anew after a fork."""
        if self._clock is not None:
            self._clock.begin()

    def _abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        self._mailboxes.abandon(loop)

    def _shard_of(self) -> Callable[[str], int]:
        if self._is_overridden("consistent_hash"):
            return self.consistent_hash
        return functools.partial(shard_of, ring_size=self.ring_size)

    def _is_overridden(self, *names: str) -> bool:
        cls = type(self)
        base = BaseRedisLayer
        return any(getattr(cls, name) is not getattr(base, name) for name in names)

    def _non_local(self, channel: Any) -> str:
        """Checks a channel name; its non-local part (itself for a normal channel)."""
        if self._names_are_fast:
            return _names.non_local_name(channel)
        self.require_valid_channel_name(channel)
        return _names.split_local(channel)

    def _warn_of_overlap(self) -> None:
        """Logs layers of this process whose keys would mix with this one's."""
        ours, found = set(map(str, self._hosts)), set()
        with _layers_lock:
            for other in _layers:
                shorter, longer = sorted((self.prefix, other.prefix), key=len)
                overlap = shorter != longer and longer.startswith(shorter)
                if overlap and not ours.isdisjoint(map(str, other._hosts)):
                    found.add((shorter, longer))
            found -= _overlaps
            _overlaps.update(found)
            _layers.add(self)
        for shorter, longer in found:
            text = "two layers on one Redis, of whose prefixes %r begins %r"
            warn(text, shorter, longer)

    def _capacity_of(self) -> Callable[[str], int]:
        overridden = self._is_overridden("get_capacity")
        return self.get_capacity if overridden else self._capacities.lookup

    def _tidy(self) -> None:
        """What is due by the clock, for callers that block."""

    def _store(
        self, runner: Any, channel: str, local: str, message: Any, began: float = 0.0
    ) -> Awaitable[Any]:
        """Has a message stored in a channel key; the reply is for `Operations.sent`.

        Not a coroutine: what is one more for each message is felt.
        """
        index, command = self._operations.send(channel, local, message)
        if runner.outbox is not None:
            storing: Awaitable[Any] = runner.outbox.store((index, command), began=began)
            return storing
        running: Awaitable[Any] = runner.shards[index].run(command, began)
        return running

    async def _receive_normal(self, channel: str, codec: Codec) -> dict[str, Any]:
        """The next message of a normal channel, whatever pools are closed meanwhile."""
        while True:
            try:
                receiving = self._loops.engine().receive(channel, codec)
                message: dict[str, Any] = await receiving
            except ReaderClosed:
                continue
            return message

    async def _learn_clock(self, runner: Any, name: str) -> float:
        """Before messages are stamped, of which one is for a key of this name.

        When their call began (`time.monotonic()`), if that is any time ago; else 0.
        """
        if (clock := self._clock) is None or clock.is_settled:
            return 0.0
        began = monotonic()
        shard = runner.shards[self._operations.shard_of(name)]
        await clock.learn(shard, lambda: shard.run(self._operations.count(name), began))
        return began

    async def _collect(
        self, runner: Any, work: SendMany, add: Callable[[int, Any, Any], None]
    ) -> float:
        """Has each pair of a `send_many` added; returns what `_learn_clock` does."""
        began = 0.0  # without a connection each pair fails
        names = (pair[0] for pair in work.pairs if isinstance(pair, (tuple, list)))
        try:
            began = await self._learn_clock(runner, str(next(names, "")))
        except RedisError as error:
            work.outcomes[:] = [error for _ in work.pairs]
        else:
            collect(work, add)
        return began

    def _make_serializer(self, format: str, keys: Masked[Any], **options: Any) -> Any:
        return serializer_of(format, keys, **options)

    def _make_codec(self) -> Codec:
        serializer, limit = self._serializer, self._size_limit
        if not self._is_overridden("serialize", "deserialize"):
            return codec_of(serializer, limit)
        return SerializerCodec(
            lambda message, key: self.serialize(message),
            lambda member, key: self.deserialize(member),
            limit,
        )

    def _matches(self, regex: re.Pattern[str], name: Any) -> bool:
        # fullmatch: a pattern that ends in `$` lets a trailing newline through.
        return (
            isinstance(name, str)
            and len(name) < self.MAX_NAME_LENGTH
            and regex.fullmatch(name) is not None
        )

    def _invalid(self, kind: str, name: Any) -> InvalidName:
        text = self.invalid_name_error.format(kind)
        return InvalidName(f"{text}, not {name!r:.200}")


def _make(
    cls: type[BaseRedisLayer], args: tuple[Any, ...], options: dict[str, Any]
) -> BaseRedisLayer:
    return cls(*args, **options)
