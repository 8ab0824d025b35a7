"""A coroutine that runs in an event loop, for a thread that waits for its result."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from redis import exceptions as errors

T = TypeVar("T")

_LOOK = 1.0  # seconds between looks whether a loop was closed


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
        deadline = deadline_of(timeout)
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


def deadline_of(timeout: float | None) -> float | None:
    """When a timeout (seconds; None: never) is over, as `time.monotonic()` says."""
    return None if timeout is None else time.monotonic() + timeout
