"""Where a consumer's events come from: its client, and its channel in the layer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .mailboxes.waiters import NOTHING, Entry, TaskWaiter

Receive = Callable[[], Awaitable[Any]]
Begin = Callable[[str], Entry | TaskWaiter | None]


class ReceiveLoop:
    """Asks `receive` for one event after another, in one task for all of them.

    Not in the consumer's own task: a middleware's `receive` may hold a timeout or a
    context variable while it waits. The next event is asked for when the last one was
    handled, so that who sends too much is held back. `on_event` is called when an event
    came, or when `receive` raised.
    """

    __slots__ = (
        "_event",
        "_handled",
        "_is_ended",
        "_receive",
        "is_ready",
        "on_event",
        "task",
    )

    def __init__(self, receive: Receive) -> None:
        self.is_ready = False
        self.on_event: Callable[[], object] | None = None
        self._receive = receive
        self._event: Any = None
        self._handled: asyncio.Future[None] | None = None
        self._is_ended = False
        self.task = asyncio.ensure_future(self._run())
        self.task.add_done_callback(self._done)

    def take(self) -> Any:
        """The event that is ready; raises what `receive` raised."""
        self.is_ready = False
        if self.task.done():
            self.task.result()
        event, self._event = self._event, None
        return event

    def ask_next(self) -> None:
        """Asks for the next event, if the last one was taken."""
        if self._handled is not None and not self.is_ready:
            if not self._handled.done():  # as it is when the task was cancelled
                self._handled.set_result(None)
            self._handled = None

    def cancel(self) -> None:
        """Asks no more."""
        self._is_ended = True
        self.task.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._event = await self._receive()
            if self._is_ended:  # it was cancelled, and returned all the same
                return
            handled = self._handled = loop.create_future()
            self._tell()
            await handled

    def _tell(self) -> None:
        self.is_ready = True
        if self.on_event is not None:
            self.on_event()

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # `take` raises it, if the consumer goes on so long
        self._tell()


class LayerMessages:
    """A consumer's messages: entries as our layers share them, else by `receive`.

    Without a layer `receive` is None.
    """

    __slots__ = ("_begin", "_channel", "_loop", "_receive")

    def __init__(self, layer: Any, channel: str, receive: Receive | None) -> None:
        self._channel = channel
        self._receive = receive
        self._begin = begin_of(layer)
        self._loop: ReceiveLoop | None = None

    async def next(self, client: ReceiveLoop) -> Entry | None:
        """The next message; None when the client has an event first."""
        if self._begin is not None:
            found = self._begin(self._channel)
            if isinstance(found, TaskWaiter):
                return await _wait(found, client)
            if found is not None:
                # A backlog must not stop the loop, nor keep a disconnect from coming.
                await asyncio.sleep(0)
                return found
            # The layer must see to the channel first, as `receive` does, for good:
            # slower, and right.
            self._begin = None
        return await self._next_by_receive(client)

    async def _next_by_receive(self, client: ReceiveLoop) -> Entry | None:
        if self._loop is None and self._receive is not None:
            self._loop = ReceiveLoop(self._receive)
        ours = self._loop
        if ours is None:
            await _first_of(client)
            return None
        ours.ask_next()
        if not ours.is_ready:
            await _first_of(client, ours)
        return (0.0, ours.take(), None, None) if ours.is_ready else None

    @property
    def loops(self) -> tuple[ReceiveLoop, ...]:
        """What asks `receive`, if anything does."""
        return () if self._loop is None else (self._loop,)


def begin_of(layer: Any) -> Begin | None:
    """What hands out a layer's shared entries, if it does; an own `receive` counts."""
    if layer is None or "receive" in vars(layer):
        return None
    for cls in type(layer).__mro__:
        if "receive" in vars(cls):
            if "_begin_receive" not in vars(cls):
                break
            begin: Begin = layer._begin_receive
            return begin
    return None


async def end(*loops: ReceiveLoop) -> None:
    """Ends them all; on return nothing of them is left."""
    for loop in loops:
        loop.cancel()
    await asyncio.wait([loop.task for loop in loops])


async def _wait(waiter: TaskWaiter, client: ReceiveLoop) -> Entry | None:
    # Only while this waits: the channel's waiter is used again, by others too.
    client.on_event = waiter.nudge
    try:
        entry = await waiter
    finally:
        client.on_event = None
    return None if entry is NOTHING else entry


async def _first_of(*loops: ReceiveLoop) -> None:
    """Returns when one of them has an event."""
    came = asyncio.get_running_loop().create_future()

    def tell() -> None:
        if not came.done():
            came.set_result(None)

    for loop in loops:
        loop.on_event = tell
    try:
        await came
    finally:
        for loop in loops:
            loop.on_event = None
