"""One pipelined connection to one server, whose replies hiredis parses."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from time import monotonic
from typing import Any

import hiredis
from redis import exceptions as errors

from ..commands.command import Command
from .forks import leave_to_parent
from .held_back import Receiver
from .reply_queue import Explain, Push, ReplyQueue

_CHECKS_PER_DEADLINE = 5
# Who doesn't wait for answers lets the event loop write after so many commands, and
# after one of so many bytes.
_MANY = 128
_LARGE = 16 * 1024


class PipelinedConnection(ReplyQueue, asyncio.Protocol):
    """Many callers share one socket: a write per loop iteration, replies in order.

    `deadline` (seconds) is how long it may be silent while an answer is missing; then
    it counts as dead. An idle connection is pinged about as often. A future of `submit`
    waits no longer either, whatever else comes: it gets an error, by itself.
    `on_lost` is called once, with this connection, when it is gone, after every waiting
    caller got its error. All else is as a `ReplyQueue` says.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        deadline: float,
        on_push: Push | None = None,
        explain: Explain = lambda error: error,
    ) -> None:
        super().__init__(on_push, explain)
        self.server = ""  # its host in words, for those who share connections
        self.heard = monotonic()  # when something came last
        # What `heard` was when a round trip was timed last; None: one is under way.
        self.timed: float | None = 0.0
        self.on_lost: Callable[[PipelinedConnection], None] | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._deadline = deadline
        self._buffer: list[bytes] = []
        # The last command had its write for itself: the next one, if no answer is
        # missing then, doesn't wait for company.
        self._alone = False
        self._timer: asyncio.TimerHandle | None = None
        self._check_at = 0.0
        self._transport: asyncio.Transport | None = None
        self._keepalive: Any = None

    # What callers use

    def call(self, command: Command) -> asyncio.Future[Any]:
        """Queues a command; the future gives its reply or raises its error.

        Cancelling the future leaves the command's place in the queue.
        """
        future = self._loop.create_future()
        if self.error is not None:
            future.set_exception(self._failure())
            return future
        self.write(command)  # raises for what can't be packed: then nobody waits
        self._waiting.append((future, None, monotonic()))
        return future

    def write(self, *commands: Command) -> None:
        """Queues commands that have no reply of their own (SUNSUBSCRIBE)."""
        if len(commands) == 1:
            packed = hiredis.pack_command(commands[0])
        else:
            packed = b"".join(map(hiredis.pack_command, commands))
        if not self._buffer:
            if self._alone and not self._waiting and self._transport is not None:
                self._transport.write(packed)
                return
            self._loop.call_soon(self._flush)
        self._buffer.append(packed)

    def post(self, receiver: Receiver, *commands: Command) -> None:
        """As `call`, with a receiver that takes the outcomes in place of futures.

        Several commands are written together.
        """
        if self.error is not None:
            raise self._failure()
        self.write(*commands)
        now = monotonic()
        self._waiting.extend((receiver, None, now) for _ in commands)

    def submit(self, receiver: Receiver, command: Command) -> None:
        """Queues a command that `on_refused` may get. Not to be used while `paused`."""
        self.write(command)
        self._waiting.append((receiver, command, monotonic()))

    @property
    def holds_much(self) -> bool:
        """Whether who doesn't wait for replies should let the loop write now."""
        buffer = self._buffer
        return bool(buffer) and (len(buffer) >= _MANY or len(buffer[-1]) >= _LARGE)

    def ask(self) -> None:
        """Queues ASKING, which lets the next command into a slot on its way here."""
        self.call((b"ASKING",)).add_done_callback(consume)

    def expect(self, receiver: Receiver) -> None:
        """Gives a receiver the next reply: what it got was of a command without one."""
        self._waiting.appendleft((receiver, None, monotonic()))

    def abort(self, error: Exception | None = None) -> None:
        """Gives the connection up now; waiting callers get `ConnectionError`."""
        if self.error is None:
            self._fail(error)
            if self._transport is not None:
                self._transport.abort()

    async def aclose(self) -> None:
        """Gives the connection up and waits until its socket is closed."""
        self.abort()
        await asyncio.shield(self.closed)

    def fileno(self) -> int:
        """The socket's file descriptor, or -1 when there is none."""
        return number_of(self._transport)

    # What the transport calls

    def adopt(self, transport: asyncio.Transport, keepalive: Any, rest: bytes) -> None:
        """Takes over a transport; `keepalive` is held for as long as the socket."""
        self._keepalive = keepalive
        self._transport = transport
        leave_to_parent(self)
        # Neither connection_made nor pause_writing is called by set_protocol.
        transport.set_protocol(self)
        self._check_in(self._deadline / _CHECKS_PER_DEADLINE)
        if transport.is_closing():
            self.abort()
        elif rest:
            self.data_received(rest)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser and hands each reply to the caller whose turn it is."""
        self._reader.feed(data)
        try:
            self._resolve()
        except (errors.InvalidResponse, IndexError) as error:
            self.abort(error)
        self.heard = monotonic()

    def pause_writing(self) -> None:
        """The transport's buffer is full: new callers wait."""
        self.paused = self._is_full = True

    def resume_writing(self) -> None:
        """The transport's buffer has room again."""
        self._is_full = False
        self._resume()

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is gone."""
        self._fail(error)
        self._keepalive = self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)

    # Steps

    def _flush(self) -> None:
        buffer = self._buffer
        # Subscriptions come in bursts, whose first should not go out alone.
        self._alone = len(buffer) == 1 and self._on_push is None
        if buffer and self._transport is not None and self.error is None:
            self._transport.write(buffer[0] if len(buffer) == 1 else b"".join(buffer))
        buffer.clear()

    def _check_in(self, seconds: float) -> None:
        self._check_at = monotonic() + seconds
        self._timer = self._loop.call_later(seconds, self._check)

    def _check(self) -> None:
        """The watchdog: dead when silent for the deadline; callers are told in time."""
        now, again = monotonic(), self._deadline / _CHECKS_PER_DEADLINE
        if now - self._check_at > again and _is_readable(self.fileno()):
            # The loop stood still: what came meanwhile is not read yet.
            self._check_in(again)
            return
        oldest = now - self._deadline
        if self._waiting:
            # Any byte is a sign of life.
            left = max(self._waiting[0][2], self.heard) - oldest
            if left <= 0:
                seconds = f"{self._deadline:g} s"
                self.abort(errors.TimeoutError(f"no answer from Redis for {seconds}"))
                return
            again = min(again, left, self._tell_late(oldest, self._deadline))
        elif self.heard <= oldest:
            # The reply is waited for like any other.
            self.call((b"PING",)).add_done_callback(consume)
        self._check_in(min(again, self._held.tell_late(oldest)))

    def _fail(self, error: Exception | None) -> None:
        if self.error is not None:
            return
        text = str(error) if error else "the server closed it"
        self.error = errors.ConnectionError(f"the connection was lost: {text}")
        if self._timer is not None:
            self._timer.cancel()
        self._buffer.clear()
        self._fail_all()
        if self.on_lost is not None:
            self.on_lost(self)


def _is_readable(number: int) -> bool:
    """Whether something came to a socket, by its descriptor, that was not read."""
    if number < 0:
        return False
    with selectors.DefaultSelector() as selector:
        selector.register(number, selectors.EVENT_READ)
        return bool(selector.select(0))


def number_of(transport: asyncio.Transport | None) -> int:
    sock = None if transport is None else transport.get_extra_info("socket")
    return -1 if sock is None else int(sock.fileno())


def consume(future: asyncio.Future[Any]) -> None:
    """Marks the outcome of a future that nobody awaits as seen."""
    if not future.cancelled():
        future.exception()
