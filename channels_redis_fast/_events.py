"""Where a consumer's events come from: its client, and its channel in the layer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from .mailboxes.waiters import NOTHING, Entry, TaskWaiter

Receive = Callable[[], Awaitable[Any]]
Begin = Callable[[str, asyncio.AbstractEventLoop], Entry | TaskWaiter | None]


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

    __slots__ = ("_begin", "_channel", "_found", "_loop", "_receive", "_receive_loop")

    def __init__(self, layer: Any, channel: str, receive: Receive | None) -> None:
        self._channel = channel
        self._receive = receive
        self._begin = begin_of(layer)
        self._loop = asyncio.get_running_loop()
        self._found: Entry = NOTHING
        self._receive_loop: ReceiveLoop | None = None

    def next(self, client: ReceiveLoop) -> Awaitable[Entry]:
        """The next message, to be awaited at once; `NOTHING`: the client has an event.

        `client.on_event` is set so long; the caller sets it to None when it goes on.
        """
        # No coroutine: for a consumer that keeps up each costs more than all of this.
        if self._begin is not None:
            found = self._begin(self._channel, self._loop)
            if isinstance(found, TaskWaiter):
                client.on_event = found.nudge
                return found
            if found is not None:
                self._found = found
                return self
            # The layer must see to the channel first, as `receive` does, for good:
            # slower, and right.
            self._begin = None
        return self._next_by_receive(client)

    def __await__(self) -> Generator[None, None, Entry]:
        # A backlog must not stop the loop, nor keep a disconnect from coming.
        yield
        found, self._found = self._found, NOTHING
        return found

    async def _next_by_receive(self, client: ReceiveLoop) -> Entry:
        if self._receive_loop is None and self._receive is not None:
            self._receive_loop = ReceiveLoop(self._receive)
        ours = self._receive_loop
        if ours is None:
            await _first_of(client)
            return NOTHING
        ours.ask_next()
        if not ours.is_ready:
            await _first_of(client, ours)
        return (0.0, ours.take(), None, None) if ours.is_ready else NOTHING

    @property
    def loops(self) -> tuple[ReceiveLoop, ...]:
        """What asks `receive`, if anything does."""
        return () if self._receive_loop is None else (self._receive_loop,)


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
