"""The layers' methods, blocking: for views, tasks, signals, management commands."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from ._group_calls import SyncGroupCalls
from ._liveness import SyncLiveness
from ._observing import SyncObserving
from ._replay import SyncReplay
from .client.blocking_shard import BlockingShard
from .commands.bulk import Outcome
from .exceptions import ForeignChannel
from .runtime.blocking_engine import run_without_loop
from .runtime.errand import Errand, deadline_of
from .runtime.loops import may_block
from .runtime.popping import Popper
from .runtime.thread_reader import ThreadReader, pop_message
from .types import Recovery, SendResult
from .wire.codec import Message
from .wire.made_names import is_made_elsewhere

__all__ = ["SyncChannelLayer", "SyncPubSubChannelLayer"]

_GRACE = 0.1  # seconds for a loop to tell the error that ends a call


class SyncChannelLayer(SyncLiveness, SyncGroupCalls, SyncObserving, SyncReplay):
    """The methods of a core layer for callers without an event loop: `layer.sync`.

    They do and raise what the layer's own do, in the calling thread, and may be called
    from any number of threads, greenlets and forked processes. Each is bounded by
    `command_timeout`. In an event loop that others share they raise `RuntimeError`.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def send(self, channel: str, message: Message) -> None:
        """Sends a message to a channel; raises `ChannelFull` at capacity."""
        self._run("send", channel, message)

    def send_many(self, messages: Iterable[tuple[str, Message]]) -> list[Outcome]:
        """Sends (channel, message) pairs together, each channel's in their order.

        Returns for each None, or the exception that `send` would have raised.
        """
        outcomes: list[Outcome] = self._run("send_many", messages)
        return outcomes

    def receive(self, channel: str, timeout: float | None = None) -> Message:
        """The next message of a channel; raises `TimeoutError` after `timeout` seconds.

        Rides out an outage of Redis for `command_timeout`, and raises redis-py's
        `ConnectionError` then.
        """
        self._check("receive")
        layer = self._layer
        non_local = layer._non_local(channel)
        if not non_local.endswith("!"):
            return self._receive_normal(channel, timeout)
        if not non_local.endswith(f"{layer.client_prefix}!"):
            raise ForeignChannel(f"{channel!r} is another process's channel")
        shard = layer._blocking.shards[layer.consistent_hash(non_local)]
        reader = ThreadReader(
            self._popper([shard], non_local),
            layer._mailboxes,
            layer._delivery,
            layer._offer,
        )
        return reader.receive(channel, deadline_of(timeout))

    def new_channel(self, prefix: str = "specific") -> str:
        """A name for a channel of this process; it lives as long as the name object."""
        name: str = self._run("new_channel", prefix)
        return name

    def group_add(self, group: str, channel: str) -> None:
        """Adds a channel to a group for `group_expiry` seconds, or anew."""
        self._run("group_add", group, channel)

    def group_discard(self, group: str, channel: str) -> None:
        """Takes a channel out of a group; no error when it isn't in it."""
        self._run("group_discard", group, channel)

    def group_send(
        self, group: str, message: Message, *, exclude: str | Iterable[str] = ()
    ) -> SendResult:
        """Sends a message to every member of a group, but for those to `exclude`."""
        options = {} if exclude == () else {"exclude": exclude}
        result: SendResult = self._run("group_send", group, message, **options)
        return result

    def group_send_many(self, messages: Iterable[tuple[str, Message]]) -> list[Outcome]:
        """Sends (group, message) pairs together, each group's in their order.

        Returns for each None, or the exception that `group_send` would have raised.
        """
        outcomes: list[Outcome] = self._run("group_send_many", messages)
        return outcomes

    def flush(self) -> None:
        """Deletes every message and group, as the layer's own `flush` does."""
        self._run("flush")

    def close(self) -> None:
        """Closes the connections that nobody uses now; the next call opens others."""
        self._layer._blocking.close()

    # Steps

    def _run(self, method: str, *args: Any, **options: Any) -> Any:
        self._check(method)
        return run_without_loop(getattr(self._layer, method)(*args, **options))

    def _check(self, method: str) -> None:
        if not may_block():
            raise RuntimeError(
                f"layer.sync.{method} would block this event loop and all that runs in "
                f"it: await layer.{method}(...) instead"
            )

    def _receive_normal(self, channel: str, timeout: float | None) -> Message:
        layer = self._layer
        popper = self._popper(layer._blocking.shards, channel)
        codec = layer._operations.codec
        message = pop_message(popper, codec, layer._counters, deadline_of(timeout))
        next(layer._messages.received)
        return message

    def _popper(self, shards: list[BlockingShard], channel: str) -> Popper:
        layer = self._layer
        return Popper(
            shards,
            layer._operations.channel_key(channel),
            layer._operations,
            layer._counters,
            layer.command_timeout,
            layer._tidy,
        )


class SyncPubSubChannelLayer(SyncChannelLayer):
    """The same for a Pub/Sub layer: `layer.sync`.

    Channels that `new_channel` makes are subscribed by an event loop of this process.
    While the layer is used in one, in another thread, `new_channel`, `group_add` and
    `receive` have it do that; without one they raise `RuntimeError`. All else,
    and normal channels, work everywhere.
    """

    def receive(self, channel: str, timeout: float | None = None) -> Message:
        """The next message of a channel; raises `TimeoutError` after `timeout` seconds.

        Raises `RuntimeError` for a published channel if no event loop listens.
        """
        self._check("receive")
        layer = self._layer
        if not layer._is_published(channel):
            if is_made_elsewhere(channel, layer.prefix):
                raise ForeignChannel(f"{channel!r} is another layer's channel")
            return self._receive_normal(channel, timeout)
        put_back = functools.partial(layer._mailboxes.put_first, channel)
        message: Message = self._there("receive", timeout, channel, undo=put_back)
        return message

    def new_channel(self, prefix: str = "specific.") -> str:
        """A name for a channel of this process; it lives as long as the name object."""
        name: str = self._there("new_channel", self._layer.command_timeout, prefix)
        return name

    def group_add(self, group: str, channel: str) -> None:
        """Adds a channel of this process to a group; returns when it gets messages."""
        self._layer.require_valid_group_name(group)
        self._layer._is_published(channel)
        self._there("group_add", self._layer.command_timeout, group, channel)

    def group_join(
        self, group: str, channel: str, since: str | None = None
    ) -> Recovery:
        """Adds a channel of this process to a group, after what came after `since`."""
        self._layer.require_valid_group_name(group)
        self._layer._is_published(channel)
        timeout = self._layer.command_timeout
        recovery: Recovery = self._there("group_join", timeout, group, channel, since)
        return recovery

    def _there(
        self,
        method: str,
        timeout: float | None,
        *args: Any,
        undo: Callable[[Any], None] = lambda result: None,
    ) -> Any:
        """The result of a method in the event loop that subscribes."""
        self._check(method)
        loops = [local.loop for local in self._layer._loops.all()]
        loop = next((loop for loop in loops if loop.is_running()), None)
        if loop is None:
            raise RuntimeError(
                f"layer.sync.{method} needs a subscription, which an event loop keeps, "
                "and this layer is used in none of this process. Receive in a consumer "
                "or another coroutine, on a normal channel, or use the core layer"
            )
        work = getattr(self._layer, method)(*args)
        # `receive` may wait for a message that is on its way; the others are bounded.
        patience = self._layer.command_timeout if method == "receive" else _GRACE
        return Errand(work, loop, undo).result(timeout, patience)
