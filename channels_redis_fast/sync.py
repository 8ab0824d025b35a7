"""The layers' methods, blocking: for views, tasks, signals, management commands."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

from redis import exceptions as errors

from .commands.bulk import Outcome
from .exceptions import ForeignChannel
from .runtime.blocking_engine import run_without_loop
from .runtime.loops import may_block
from .runtime.popping import InboxPump, pop_message
from .wire.codec import Codec, Message
from .wire.made_names import is_made_elsewhere

__all__ = ["SyncChannelLayer", "SyncPubSubChannelLayer"]

T = TypeVar("T")

_GRACE = 0.1  # seconds for a loop to tell the error that ends a call
_LOOK = 1.0  # seconds between looks whether a loop was closed


class SyncChannelLayer:
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
            return self._receive_normal(channel, layer._codec, timeout)
        if not non_local.endswith(f"{layer.client_prefix}!"):
            raise ForeignChannel(f"{channel!r} is another process's channel")
        pump = InboxPump(
            layer._blocking.shards[layer.consistent_hash(non_local)],
            layer._operations.channel_key(non_local),
            layer._codec,
            layer._counters,
            layer._mailboxes,
            layer._offer,
            layer.expiry,
            layer._tidy,
        )
        return pump.receive(channel, _deadline(timeout), layer.command_timeout)

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

    def group_send(self, group: str, message: Message) -> None:
        """Sends a message to every member of a group."""
        self._run("group_send", group, message)

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

    def _run(self, method: str, *args: Any) -> Any:
        self._check(method)
        return run_without_loop(getattr(self._layer, method)(*args))

    def _check(self, method: str) -> None:
        if not may_block():
            raise RuntimeError(
                f"layer.sync.{method} would block this event loop and all that runs in "
                f"it: await layer.{method}(...) instead"
            )

    def _receive_normal(
        self, channel: str, codec: Codec, timeout: float | None
    ) -> Message:
        layer = self._layer
        return pop_message(
            layer._blocking.shards,
            layer._operations.channel_key(channel),
            codec,
            layer._counters,
            _deadline(timeout),
            layer.command_timeout,
            layer.expiry,
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
            return self._receive_normal(channel, layer._normal_codec, timeout)
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


class Errand(Generic[T]):
    """What an event loop does for a thread that waits for it.

    Raises redis-py's `ConnectionError` when the loop is closed. `undo` is called with
    a result that comes when the thread has given up, in whichever thread finds it.
    """

    def __init__(
        self,
        work: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        undo: Callable[[T], None],
    ) -> None:
        self._loop = loop
        self._undo = undo
        self._work = work
        self._outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._task: asyncio.Task[T] | None = None
        try:
            loop.call_soon_threadsafe(self._begin)
        except RuntimeError as error:  # closed meanwhile
            work.close()
            text = f"the loop that listens ended: {error}"
            raise errors.ConnectionError(text) from error

    def result(self, timeout: float | None, patience: float) -> T:
        """The result; raises `TimeoutError` when there is none after `timeout` seconds.

        What comes as late as the time is up is returned all the same, else it would be
        lost: so the loop has `patience` seconds more, to say that it has given up.
        """
        try:
            in_time = self._wait(timeout)
            if not in_time:
                self._cancel()
                if not self._wait(patience):
                    text = "the loop that listens does not answer"
                    raise errors.ConnectionError(text)
        except BaseException:  # also of a signal handler, or a greenlet's timeout
            self._give_up()
            raise
        try:
            return self._outcome.result()
        except concurrent.futures.CancelledError as error:
            if in_time:
                text = "the loop that listens ended"
                raise errors.ConnectionError(text) from error
            raise TimeoutError(f"nothing within {timeout} s") from error

    def _wait(self, timeout: float | None) -> bool:
        deadline = _deadline(timeout)
        while True:
            left = _LOOK if deadline is None else deadline - time.monotonic()
            if concurrent.futures.wait([self._outcome], min(left, _LOOK)).done:
                return True
            if self._loop.is_closed():
                return self._is_over()
            if left <= _LOOK and deadline is not None:
                return False

    def _is_over(self) -> bool:
        """Whether it was done when its loop was closed: it never will be, if not."""
        if not self._outcome.done():
            if self._task is None:
                self._work.close()
            raise errors.ConnectionError("the loop that listens ended")
        return True

    def _give_up(self) -> None:
        """Nobody takes the result: one that came just now is undone here."""
        self._cancel()
        if not self._outcome.cancel() and self._outcome.exception() is None:
            self._undo(self._outcome.result())

    def _cancel(self) -> None:
        def cancel() -> None:
            if self._task is not None:
                self._task.cancel()

        with contextlib.suppress(RuntimeError):  # closed
            self._loop.call_soon_threadsafe(cancel)

    # In the loop

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._work)
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._outcome.cancel()
        error = None if task.cancelled() else task.exception()
        is_awaited = self._outcome.set_running_or_notify_cancel()
        if error is not None and is_awaited:
            self._outcome.set_exception(error)
        elif is_awaited:
            self._outcome.set_result(task.result())
        elif error is None and not task.cancelled():
            self._undo(task.result())


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout
