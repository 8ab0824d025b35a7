"""A connection that comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from time import monotonic

from redis import exceptions as errors

from ..commands.errors import copy_of
from .connection import PipelinedConnection

Open = Callable[[], Awaitable[PipelinedConnection]]
Greet = Callable[[PipelinedConnection], Awaitable[None]]

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.5
_PATIENCE = 30.0
_LATER_PAUSE = 2.0
# Pauses stay this short where a server answers: callers give up soon.
_MOST_REOPENED = 3
# A connection that was up for so long (seconds) ends a series of failures: a server
# that takes connections and then ends them is not tried without pauses.
_PROVEN = 1.0


def pause_after(failures: int, seconds: float) -> float:
    """How long to wait (seconds) after so many failures in so many seconds.

    At once, then 50 ms doubling to 500 ms for the first 30 s, 2 s later; with a
    jitter of 0.5 to 1, so that a fleet doesn't come back in step.
    """
    if failures == 0:
        return 0.0
    pause = min(_FIRST_PAUSE * 2.0 ** min(failures - 1, 10), _LONGEST_PAUSE)
    if seconds > _PATIENCE:
        pause = _LATER_PAUSE
    return pause * random.uniform(0.5, 1.0)


class ReconnectingConnection:
    """Opens a connection on demand and again whenever it is lost.

    `greet` runs on every new connection before any caller gets it. `on_ready` is
    called when a connection is there, `on_down` for each loss or failed attempt. An
    `eager` link tries again by itself even if it was never connected; any link does
    once it was.
    """

    def __init__(
        self,
        open_: Open,
        *,
        greet: Greet | None = None,
        on_ready: Callable[[], None] | None = None,
        on_down: Callable[[Exception], None] | None = None,
        eager: bool = False,
    ) -> None:
        self.connection: PipelinedConnection | None = None
        self.was_up = False
        self.on_cancelled: Callable[[], None] | None = None  # an attempt was
        self._was_heard = False
        self.up_since = 0.0  # `time.monotonic()`
        self._open = open_
        self._greet = greet
        self._on_ready = on_ready
        self._on_down = on_down
        self._eager = eager
        self._loop = asyncio.get_running_loop()
        self._attempt: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        self._failures = 0
        self._down_since = self._loop.time()
        self._not_before = 0.0
        self._closed = False

    async def get(self) -> PipelinedConnection:
        """The connection, when it takes more.

        Waits for the attempt in progress; raises its error when it fails, and the
        last one at once during back-off, so that callers never pile up.
        """
        if self.connection is None:
            self.begin()
            if self._attempt is not None:
                await asyncio.wait([self._attempt])
        connection = self.connection
        if connection is None:
            raise self._refusal()
        if connection.paused:
            await connection.drained()
        return connection

    def usable(self) -> PipelinedConnection | None:
        """The connection, if it takes more; None when it will, or an attempt goes on.

        Raises the last attempt's error when there is none, and none begins.
        """
        self.begin()
        connection = self.connection
        if connection is None and self._attempt is None:
            raise self._refusal()
        return None if connection is None or connection.paused else connection

    def begin(self) -> None:
        """Starts an attempt unless one is under way, needless or too early."""
        if self.connection is not None or self._attempt is not None or self._closed:
            return
        if self._loop.time() >= self._not_before:
            self._cancel_timer()
            attempt = self._loop.create_task(self._connect())
            # An eager task factory may have ended it already.
            if not attempt.done():
                self._attempt = attempt
                attempt.add_done_callback(self._attempted)

    def drop(self, error: Exception) -> None:
        """Gives the connection up (its server is no primary any more); tries again."""
        if self.connection is not None:
            self.connection.abort(error)

    def reopen(self, error: Exception | None = None) -> None:
        """Connects anew, to another server of the same shard; nothing was lost.

        After an error of the server with short pauses: it may well be the same server
        again. Callers meet that error meanwhile.
        """
        if (connection := self.detach()) is not None:
            connection.abort()
            if error is not None:
                failures = min(self._failures_before(), _MOST_REOPENED)
                self._wait(error, pause_after(failures, 0.0))
        self.begin()

    def detach(self) -> PipelinedConnection | None:
        """Gives the connection away, if there is one; it isn't lost."""
        connection, self._was_heard, self.connection = (
            self.connection,
            self.is_heard,
            None,
        )
        if connection is not None:
            connection.on_lost = None
        return connection

    @property
    def is_heard(self) -> bool:
        """Whether a server answered, after a greeting: this one or one before."""
        connection = self.connection
        is_now = connection is not None and connection.heard > self.up_since
        return self._was_heard or is_now

    async def retire(self) -> None:
        """Closes for good when who waits for a connection or an answer has it."""
        self._closed = True
        self._cancel_timer()
        if self._attempt is not None:
            await asyncio.wait([self._attempt])
        with contextlib.suppress(errors.RedisError):
            while self.connection is not None:
                # Replies keep their order; who waited for room to write comes later.
                await self.connection.call((b"PING",))
                if self.connection is not None and self.connection.is_idle:
                    break
        await self.aclose()

    async def aclose(self) -> None:
        """Closes for good; attempts end, the socket is closed."""
        self._closed = True
        self._cancel_timer()
        attempt, connection = self._attempt, self.connection
        if attempt is not None:
            attempt.cancel()
            await asyncio.wait([attempt])
            connection = connection or self.connection
        self.connection = None
        if connection is not None:
            await connection.aclose()

    async def _connect(self) -> None:
        try:
            connection = await self._open()
            try:
                if self._greet is not None:
                    await self._greet(connection)
                if connection.error is not None:
                    raise connection.error
            except BaseException:
                connection.abort()
                raise
        except Exception as error:
            self._attempt = None
            self._down(error, self._failures + 1)
        else:
            self._attempt = None
            self._up(connection)

    def _attempted(self, attempt: asyncio.Task[None]) -> None:
        """Also of an attempt that was cancelled before it began."""
        if self._attempt is attempt:
            self._attempt = None
        if attempt.cancelled():  # as all tasks are at the end of `asyncio.run`
            error = errors.ConnectionError("connecting was cancelled")
            self._wait(error, _LONGEST_PAUSE)  # if the loop goes on
            self._not_before = 0.0
            if self.on_cancelled is not None and not self._closed:
                self.on_cancelled()

    def _up(self, connection: PipelinedConnection) -> None:
        self.connection, self.was_up = connection, True
        self.up_since, self._error = monotonic(), None
        connection.on_lost = self._lost
        if self._on_ready is not None:
            self._on_ready()

    def _lost(self, connection: PipelinedConnection) -> None:
        self._was_heard, self.connection = self.is_heard, None
        error = connection.error or errors.ConnectionError("connection lost")
        self._down(error, self._failures_before())

    def _failures_before(self) -> int:
        """How many a loss follows upon; from now on it is counted how long it takes."""
        if monotonic() - self.up_since > _PROVEN:
            self._failures, self._down_since = 0, self._loop.time()
        return self._failures

    def _down(self, error: Exception, failures: int) -> None:
        if self._failures == 0:
            self._down_since = self._loop.time()
        seconds = self._loop.time() - self._down_since
        self._wait(error, pause_after(failures, seconds))
        if not self._closed and self._on_down is not None:
            self._on_down(error)

    def _wait(self, error: Exception, pause: float) -> None:
        self._failures += 1
        self._error = error
        self._not_before = self._loop.time() + pause
        if not self._closed and (self._eager or self.was_up):
            self._cancel_timer()
            self._timer = self._loop.call_later(pause, self._try_again)

    def _try_again(self) -> None:
        self._timer = None
        self._not_before = 0.0  # timers may be a little early
        self.begin()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refusal(self) -> Exception:
        error = self._error
        if isinstance(error, errors.RedisError):
            return copy_of(error)
        return errors.ConnectionError(str(error or "this connection is closed"))
