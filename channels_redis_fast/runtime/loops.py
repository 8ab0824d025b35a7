"""What belongs to one event loop, how it ends with its loop, and what a fork leaves."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import types
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from asgiref.sync import AsyncToSync

from ..client.forks import Step, bury, on_fork


class Local(Protocol):
    """Something that lives in one event loop."""

    async def aclose(self) -> None:
        """Ends it; called in its loop."""


T = TypeVar("T", bound=Local)
P = ParamSpec("P")
R = TypeVar("R")


class LoopRegistry(Generic[T]):
    """Makes one `T` for each event loop that asks, and ends it when the loop ends.

    `on_close` is told a loop before and after it is closed: its tasks go on no more.
    """

    def __init__(
        self,
        make: Callable[[], T],
        on_fork: Callable[[], None],
        on_close: Callable[[asyncio.AbstractEventLoop], None] = lambda loop: None,
    ) -> None:
        self._make = make
        self._on_fork = on_fork
        self._on_close = on_close
        self._locals: dict[asyncio.AbstractEventLoop, T] = {}
        self._guards: dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = {}
        self._goes_on: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._ending: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        _all_loops.add(self)

    def end_with(self, owner: object) -> None:
        """Ends all when `owner` is collected; what was made must not refer to it."""
        weakref.finalize(owner, self._end_all).atexit = False

    def engine(self) -> T:
        """The running loop's; raises `RuntimeError` while the loop is shut down."""
        loop = asyncio.get_running_loop()
        local = self._locals.get(loop)
        return local if local is not None else self._begin(loop)

    def engine_for_call(self) -> T | None:
        """As `engine`; None for a caller that may block: `may_block`."""
        loop = asyncio._get_running_loop()
        local = self._locals.get(loop) if loop is not None else None
        if local is None and not may_block():
            local = self.engine()
        return local

    def existing(self) -> T | None:
        """The running loop's, if there is one."""
        loop = asyncio._get_running_loop()
        return self._locals.get(loop) if loop is not None else None

    def all(self) -> list[T]:
        """Those of all loops."""
        return list(self._locals.values())

    def call_in(
        self,
        loops: Iterable[asyncio.AbstractEventLoop],
        callback: Callable[..., object],
        *args: object,
    ) -> None:
        """Calls something soon in those loops that run and take new work.

        Others see to it by their clocks when they go on: calls would pile up in them.
        """

        def call() -> None:
            if asyncio.get_running_loop() not in self._ending:
                callback(*args)

        for loop in [loop for loop in loops if loop.is_running()]:
            with contextlib.suppress(RuntimeError):  # closed; its waiters are gone
                loop.call_soon_threadsafe(call)

    def for_each(self, callback: Callable[[T], object]) -> None:
        """Calls something with each loop's own: soon in those that run, else now."""
        here = asyncio._get_running_loop()
        for loop, local in list(self._locals.items()):
            if loop is here or not loop.is_running():
                callback(local)
            else:
                self.call_in([loop], callback, local)

    async def close_here(self) -> None:
        """Ends the running loop's, if there is one; the next call makes a new one."""
        loop = asyncio._get_running_loop()
        guard = self._guards.get(loop) if loop is not None else None
        if loop is not None and guard is not None:
            self._goes_on.add(loop)
            await guard.aclose()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> T:
        if loop in self._ending:
            raise RuntimeError("this event loop is being shut down")
        self._forget_closed()
        local = self._locals[loop] = self._make()
        guard = self._guards[loop] = self._guard(loop, local)
        # asyncio.run and asgiref close the generators that began in their loop.
        # This one only waits to be closed.
        with contextlib.suppress(StopIteration):
            guard.__anext__().send(None)
        _finish_before_close(loop)
        return local

    def _end_all(self) -> None:
        """From any thread. A loop that stands still comes to it when it is closed."""
        for loop in list(self._guards):
            with contextlib.suppress(RuntimeError):  # closed
                loop.call_soon_threadsafe(self._end_here)

    def _end_here(self) -> None:
        ending = asyncio.get_running_loop().create_task(self.close_here())
        _endings.add(ending)  # a loop itself holds its tasks weakly
        ending.add_done_callback(_endings.discard)

    async def _guard(
        self, loop: asyncio.AbstractEventLoop, local: T
    ) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if loop in self._goes_on:
                self._goes_on.discard(loop)
            else:
                self._ending.add(loop)
            self._locals.pop(loop, None)
            self._guards.pop(loop, None)
            # Cancelled halfway it would leave connections, and what was claimed.
            closing = loop.create_task(local.aclose())
            _closing[closing] = local
            closing.add_done_callback(_closed)
            await asyncio.shield(closing)

    def _finish(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends what a loop that stands still has."""
        guard = self._guards.get(loop)
        if guard is not None:
            _run(loop, guard.aclose())

    def _forget_closed(self) -> None:
        for loop in [loop for loop in list(self._locals) if loop.is_closed()]:
            self._locals.pop(loop, None)
            self._guards.pop(loop, None)

    def _forked(self) -> None:
        """Lets go of what is the parent's without a word to its loops."""
        # Their finalisers would close transports and touch the parent's loops.
        bury(self._locals, self._guards)
        self._locals, self._guards = {}, {}
        self._on_fork()


def weakly(method: Callable[P, R]) -> Callable[P, R | None]:
    """A method for those who outlive its object: then it does nothing."""
    ref = weakref.WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> R | None:
        found: Callable[P, R] | None = ref()
        return None if found is None else found(*args, **kwargs)

    return call


def may_block() -> bool:
    """Whether nobody but the caller waits for this thread: it may block.

    True where no event loop runs, and in the loop that `async_to_sync` makes for one
    call, while that call is all there is in it.
    """
    loop = asyncio._get_running_loop()
    # Greenlets share the running loop of their thread, which may be another one's.
    ident = threading.get_ident()
    if loop is None or getattr(loop, "_thread_id", ident) != ident:
        return True
    return (
        loop in getattr(AsyncToSync, "loop_thread_executors", ())
        and len(asyncio.all_tasks(loop)) == 1
        # A timer may be somebody's timeout, which must not come late. uvloop doesn't
        # tell whether it has any.
        and not getattr(loop, "_scheduled", True)
    )


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, object]) -> None:
    """Runs something to its end in a loop that stands still."""
    if asyncio._get_running_loop() is None:
        loop.run_until_complete(work)
    else:  # another loop runs in this thread, which allows no second
        thread = threading.Thread(target=loop.run_until_complete, args=(work,))
        thread.start()
        thread.join()


def _finish_before_close(loop: asyncio.AbstractEventLoop) -> None:
    """For loops that nobody shuts down: `loop.close` ends what they have first."""
    if loop in _wrapped:
        return
    _wrapped.add(loop)
    original = loop.close

    def close(loop: asyncio.AbstractEventLoop) -> None:
        everywhere = list(_all_loops)
        try:
            if not loop.is_running() and not loop.is_closed():
                for loops in everywhere:
                    loops._on_close(loop)  # what still comes is for other loops
                for loops in everywhere:
                    loops._finish(loop)
                _finish_closing(loop)
        finally:
            loop.close = original  # type: ignore[method-assign]
            original()
            for loops in everywhere:
                loops._on_close(loop)

    loop.close = types.MethodType(close, loop)  # type: ignore[method-assign]


def _closed(closing: asyncio.Task[None]) -> None:
    # One that the end of its loop cancelled may not even have begun.
    if not closing.cancelled():
        _closing.pop(closing, None)


def _finish_closing(loop: asyncio.AbstractEventLoop) -> None:
    """Waits for what is ending in a loop; what was cancelled meanwhile goes on."""
    for closing, local in list(_closing.items()):
        if closing.get_loop() is loop:
            _closing.pop(closing, None)
            again = closing.cancelled()
            _run(loop, local.aclose() if again else asyncio.wait([closing]))


_all_loops: weakref.WeakSet[LoopRegistry[Any]] = weakref.WeakSet()
# What is ending; also where nobody holds its `LoopRegistry` any more.
_closing: dict[asyncio.Task[None], Local] = {}
_wrapped: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_endings: set[asyncio.Task[None]] = set()


def _after_fork() -> None:
    bury(dict(_closing))
    _closing.clear()
    for loops in list(_all_loops):
        loops._forked()


on_fork(Step.LOOPS, _after_fork)
