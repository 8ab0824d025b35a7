"""Who waits for a message: a task of an event loop, or a thread."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Generator
from typing import Any, Protocol

from ..wire.codec import Message

# A message on its way to channels, which all share this: when it ends (seconds,
# monotonic), the message, what makes a copy for each that reads it, if several do, and
# where these keep what they make of it together (see consumers.py).
Entry = tuple[float, Message, Callable[[], Message] | None, dict[Any, Any] | None]

# What a wait ends with that ends without a message.
NOTHING: Entry = (0.0, {}, None, None)


class ChannelEnded(Exception):
    """Somebody waits on a channel that was ended: nothing will come."""


def opened(entry: Entry) -> Message:
    """A message for one receiver."""
    _, message, copy, _ = entry
    return message if copy is None else copy()


class Leave(Protocol):
    """The dispatcher, as those who wait see it."""

    def withdraw(self, waiter: Any) -> None:
        """Ends a wait; a message that was given goes back."""

    def withdraw_later(self, waiter: Any) -> None:
        """The same, before long; may be called from anywhere, without a lock."""

    def forget(self, waiter: Any) -> bool:
        """Ends a wait to which no message is on its way; whether there was one."""


class TaskWaiter:
    """A message to come, for the task that awaits this; cancelled, it loses none.

    Tasks take it for a future: it has what asyncio asks of future-like objects. A
    future calls back by a handle of the loop for each; here one handle lets all tasks
    go on that got the same message (`wake`). The object may be awaited again: a channel
    has one for all its waits.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_callback",
        "_context",
        "_dispatcher",
        "box",
        "entry",
        "error",
        "is_called",
        "is_used",
        "loop",
    )

    def __init__(
        self, box: Any, loop: asyncio.AbstractEventLoop, dispatcher: Leave
    ) -> None:
        self._asyncio_future_blocking = False
        self._callback: Callable[[TaskWaiter], object] | None = None
        self._context: contextvars.Context | None = None
        self._dispatcher = dispatcher
        self.box = box
        self.loop = loop
        self.is_used = True
        self.is_called = False  # to come for a message, in its loop
        self.entry: Entry | None = None  # what was given
        self.error: BaseException | None = None

    def __await__(self) -> Generator[TaskWaiter, None, Entry]:
        try:
            if self.entry is None and self.error is None:
                self._asyncio_future_blocking = True
                yield self
            entry = self.result()
        except GeneratorExit:  # garbage, collected perhaps in the midst of other work
            self._callback = self._context = None
            self._dispatcher.withdraw_later(self)
            raise
        except BaseException:
            self.leave()
            raise
        self._callback = self._context = self.entry = None
        self.is_used = False
        return entry

    def give(self, entry: Entry) -> None:
        """Gives a message; called in the loop, perhaps by a task of it."""
        self.entry = entry
        self.loop.call_soon(wake, [self])

    def nudge(self) -> None:
        """Ends a wait with `NOTHING`, unless a message comes; called in the loop."""
        if self._dispatcher.forget(self):
            self.give(NOTHING)

    def give_back(self) -> Entry | None:
        """The message that was given and not taken."""
        return None if self.entry is NOTHING else self.entry

    def fail(self, error: BaseException) -> None:
        """Raises an error in who waits."""
        self.error = error
        self.loop.call_soon(wake, [self])

    def leave(self) -> None:
        """Ends the wait; what was given goes back."""
        self._dispatcher.withdraw(self)
        self.error = asyncio.CancelledError()  # one that holds no frame
        self._callback = self._context = None

    # What a task asks of a future

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The task's."""
        return self.loop

    def add_done_callback(
        self,
        callback: Callable[[TaskWaiter], object],
        *,
        context: contextvars.Context | None = None,
    ) -> None:
        """Takes what lets the task go on."""
        self._callback = callback
        self._context = contextvars.copy_context() if context is None else context

    def done(self) -> bool:
        """Whether there is a message or an error."""
        return self.entry is not None or self.error is not None

    def result(self) -> Entry:
        """What was given; raises the error."""
        if self.error is not None:
            raise self.error
        if self.entry is None:
            raise asyncio.InvalidStateError("no message yet")
        return self.entry

    def cancel(self, msg: Any = None) -> bool:
        """Ends the wait; False when a message was given: the task gives it back."""
        if self.done():
            return False
        self._dispatcher.withdraw(self)
        self.fail(asyncio.CancelledError(*(() if msg is None else (msg,))))
        return True


def wake(waiters: list[TaskWaiter]) -> None:
    """Lets tasks go on, in their order.

    A callback of their loop, never called by a task: one can't go on within another.
    """
    rest = iter(waiters)
    try:
        for waiter in rest:
            context = waiter._context
            # Else it got its message before it waited, and may wait for the next now.
            if context is not None and (waiter.entry or waiter.error):
                context.run(waiter._callback, waiter)  # type: ignore[arg-type]
    except BaseException:  # KeyboardInterrupt ends the loop, which then cancels all
        if later := list(rest):
            later[0].loop.call_soon(wake, later)
        raise


class ThreadWaiter:
    """A thread that waits, among the tasks of event loops.

    No more than a lock to wait on: a signal handler may come at any time.
    """

    def __init__(self) -> None:
        self.loop = NO_LOOP
        self.is_called = False
        self.box: Any = None
        self.error: BaseException | None = None
        self._entry: Entry | None = None
        self._message: Message | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, seconds: float | None) -> None:
        """Returns when something happened, or the time is over."""
        self._lock.acquire(timeout=-1 if seconds is None else max(0.0, seconds))

    def nudge(self) -> None:
        """Ends a wait, for nothing."""
        with contextlib.suppress(RuntimeError):  # it was ended already
            self._lock.release()

    def message(self) -> Message | None:
        """The message, if there is one; raises the error."""
        if self.error is not None:
            raise self.error
        if self._message is None and self._entry is not None:
            self._message = opened(self._entry)
        return self._message

    def give(self, entry: Entry) -> None:
        """Gives a message."""
        self._entry = entry
        self.nudge()

    def give_back(self) -> Entry | None:
        """What was given and not taken."""
        return self._entry

    def fail(self, error: BaseException) -> None:
        """Raises an error in who waits."""
        self.error = error
        self.nudge()


class NoLoop:
    """Where threads wait and read."""

    def call_soon_threadsafe(self, function: Any, *args: Any) -> None:
        """Calls it now."""
        function(*args)

    def is_closed(self) -> bool:
        """Never."""
        return False

    def is_running(self) -> bool:
        """Always."""
        return True


NO_LOOP = NoLoop()

Waiter = TaskWaiter | ThreadWaiter


def call(waiter: Waiter, function: Callable[..., None], *args: Any) -> bool:
    """Calls a function in a waiter's loop; False when that loop is closed."""
    loop = waiter.loop
    if loop is asyncio._get_running_loop():
        function(*args)
        return True
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        return False
    return True


def fail(waiter: Waiter, error: Exception) -> None:
    """Raises an error in who waits, unless it was cancelled meanwhile."""
    if waiter.error is None:
        waiter.fail(error)
