"""One pipelined connection to one server: redis-py opens it, hiredis parses it."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import hiredis
from redis import exceptions as errors

from ._forks import leave_to_parent

# Bytes and str, no numbers: while hiredis turns one into bytes, a signal handler may
# run, and if it raises (a task queue's soft time limit does), the process crashes.
Command = tuple[Any, ...]
Push = Callable[[list[Any]], None]

# First words of an error reply that callers tell apart. The classes that parse a
# destination out of their text get it without the first word.
_REDIRECTIONS = {"MOVED": errors.MovedError, "ASK": errors.AskError}
_ERRORS: dict[str, type[errors.RedisError]] = {
    "CLUSTERDOWN": errors.ClusterDownError,
    "LOADING": errors.BusyLoadingError,
    "MASTERDOWN": errors.MasterDownError,
    "NOAUTH": errors.AuthenticationError,
    "NOPERM": errors.NoPermissionError,
    "NOSCRIPT": errors.NoScriptError,
    "OOM": errors.OutOfMemoryError,
    "READONLY": errors.ReadOnlyError,
    "TRYAGAIN": errors.TryAgainError,
    "WRONGPASS": errors.AuthenticationError,
}

# Kinds of messages that a subscribed connection gets without asking (RESP2).
_PUSHES = frozenset(
    (
        b"message",
        b"smessage",
        b"subscribe",
        b"ssubscribe",
        b"unsubscribe",
        b"sunsubscribe",
    )
)

# How Redis before 7 wraps an error that a command of a script got.
_IN_SCRIPT = re.compile(r"ERR Error running script .*?: -([A-Z]+) ")
# What a Redis that is too old says to a reader, and to a script that asks for the time.
_TOO_OLD = re.compile(r"ERR unknown command .B?ZPOPMIN|.* non deterministic commands")

_NOT_YET = object()
_CHECKS_PER_DEADLINE = 5

# Who doesn't wait for answers lets the event loop write after so many commands, and
# after one of so many bytes.
_MANY = 128
_LARGE = 16 * 1024


def reply_error(text: str) -> errors.RedisError:
    """The redis-py exception for an error reply, by the first word of its text."""
    code, _, rest = text.partition(" ")
    if in_script := _IN_SCRIPT.match(text):
        code = in_script[1]
    if _TOO_OLD.match(text):
        text = f"Redis 5.0 or later is needed: {text}"
    if code in _REDIRECTIONS:
        return _REDIRECTIONS[code](rest)
    return _ERRORS.get(code, errors.ResponseError)(text)


class Opener(Protocol):
    """A way to one server, as `_hosts` describes it."""

    connect_timeout: float

    def make_connection(self) -> Any:
        """A new redis-py connection, not yet connected."""

    async def release(self, connection: Any) -> None:
        """Closes what finding the server left open beside the connection."""


class PipelinedConnection(asyncio.Protocol):
    """Many callers share one socket: a write per loop iteration, replies in order.

    `deadline` (seconds) is how long the oldest unanswered command may take before
    the connection counts as dead; an idle connection is pinged about as often.
    With `on_push`, messages of subscriptions go there. `on_lost` is called once,
    with this connection, when it is gone, after every waiting caller got its error.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        deadline: float,
        on_push: Push | None = None,
    ) -> None:
        self.paused = False
        self.error: errors.RedisError | None = None  # why it is gone
        self.on_lost: Callable[[PipelinedConnection], None] | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        self.scripts: set[bytes] = set()  # that were sent here as a text
        self._loop = loop
        self._deadline = deadline
        self._on_push = on_push
        self._buffer: list[bytes] = []
        # The last command had its write for itself: the next one, if no answer is
        # missing then, doesn't wait for company.
        self._alone = False
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._drained: asyncio.Future[None] | None = None
        self._oldest: asyncio.Future[Any] | None = None
        self._oldest_seen = 0.0
        self._quiet = 0  # checks since the last reply, while nobody waits
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._keepalive: Any = None
        self._reader = hiredis.Reader(
            protocolError=errors.InvalidResponse,
            replyError=reply_error,
            notEnoughData=_NOT_YET,
        )

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
        self._waiting.append(future)
        return future

    def write(self, *commands: Command) -> None:
        """Queues commands that have no reply of their own (SUBSCRIBE and its kin)."""
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

    def post(self, receipt: Any, *commands: Command) -> bool:
        """As `call`, with a receipt that takes the outcomes in place of futures.

        Several commands are written together. True when so much is queued that the
        caller should let the loop write it.
        """
        if self.error is not None:
            raise self._failure()
        self.write(*commands)
        self._waiting.extend(receipt for _ in commands)
        buffer = self._buffer
        return bool(buffer) and (len(buffer) >= _MANY or len(buffer[-1]) >= _LARGE)

    def ask(self) -> None:
        """Queues ASKING, which lets the next command into a slot on its way here."""
        self.call((b"ASKING",)).add_done_callback(_consume)

    def answer(self, future: asyncio.Future[Any], reply: Any) -> bool:
        """Gives a command the push that answers it (SUBSCRIBE and its kin).

        False when it isn't the command's turn: the push came by itself.
        """
        if not self._waiting or self._waiting[0] is not future:
            return False
        self._waiting.popleft()
        if not future.done():
            future.set_result(reply)
        return True

    async def drained(self) -> None:
        """Waits while the socket takes no more; returns at once when it does."""
        while self.paused and self.error is None:
            if self._drained is None:
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

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
        return _number_of(self._transport)

    # What the transport calls

    def adopt(self, transport: asyncio.Transport, keepalive: Any, rest: bytes) -> None:
        """Takes over a transport; `keepalive` is held for as long as the socket."""
        self._keepalive = keepalive
        self._transport = transport
        leave_to_parent(self)
        # Neither connection_made nor pause_writing is called by set_protocol.
        transport.set_protocol(self)
        self._timer = self._loop.call_later(self._check_every(), self._check)
        if transport.is_closing():
            self.abort()
        elif rest:
            self.data_received(rest)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser and hands each reply to the caller whose turn it is."""
        self._reader.feed(data)
        # Any byte is a sign of life: a large reply may take longer than the deadline.
        self._oldest = None
        self._quiet = 0
        try:
            self._resolve()
        except (errors.InvalidResponse, IndexError) as error:
            self.abort(error)

    def pause_writing(self) -> None:
        """The transport's buffer is full: new callers wait in `drained`."""
        self.paused = True

    def resume_writing(self) -> None:
        """The transport's buffer has room again."""
        self.paused = False
        self._wake_writers()

    def eof_received(self) -> bool:
        """The server closed its side: so do we."""
        return False

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

    def _resolve(self) -> None:
        gets, waiting, on_push = self._reader.gets, self._waiting, self._on_push
        while (reply := gets()) is not _NOT_YET:
            if on_push is not None and _is_push(reply):
                on_push(reply)
                continue
            future = waiting.popleft()
            if future.done():
                continue  # its caller was cancelled
            if isinstance(reply, errors.RedisError):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    def _check_every(self) -> float:
        return self._deadline / _CHECKS_PER_DEADLINE

    def _check(self) -> None:
        """The watchdog: dead when one command stayed the oldest for the deadline."""
        now = self._loop.time()
        if not self._waiting:
            self._oldest = None
            self._quiet += 1
            if self._quiet >= _CHECKS_PER_DEADLINE:
                # The reply is waited for like any other.
                self.call((b"PING",)).add_done_callback(_consume)
        elif self._waiting[0] is not self._oldest:
            self._oldest, self._oldest_seen = self._waiting[0], now
        elif now - self._oldest_seen > self._deadline:
            seconds = f"{self._deadline:g} s"
            self.abort(errors.TimeoutError(f"no answer from Redis for {seconds}"))
            return
        self._timer = self._loop.call_later(self._check_every(), self._check)

    def _failure(self) -> errors.ConnectionError:
        # A new instance for each caller: a raised exception collects a traceback.
        return errors.ConnectionError(*self.error.args if self.error else ())

    def _fail(self, error: Exception | None) -> None:
        if self.error is not None:
            return
        text = str(error) if error else "the server closed it"
        self.error = errors.ConnectionError(f"the connection was lost: {text}")
        if self._timer is not None:
            self._timer.cancel()
        self._buffer.clear()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(self._failure())
        self._wake_writers()
        if self.on_lost is not None:
            self.on_lost(self)

    def _wake_writers(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None


def _number_of(transport: asyncio.Transport | None) -> int:
    sock = None if transport is None else transport.get_extra_info("socket")
    return -1 if sock is None else int(sock.fileno())


def _is_push(reply: Any) -> bool:
    return type(reply) is list and bool(reply) and reply[0] in _PUSHES


def _consume(future: asyncio.Future[Any]) -> None:
    """Marks the outcome of a future that nobody awaits as seen."""
    if not future.cancelled():
        future.exception()


async def open_connection(
    opener: Opener, *, deadline: float, on_push: Push | None = None
) -> PipelinedConnection:
    """Connects through redis-py (TLS, AUTH, SELECT, Sentinel) and takes the pipe over.

    Raises redis-py's `ConnectionError` (also for silence: `connect_timeout`) and
    `AuthenticationError`.
    """
    connection = opener.make_connection()
    opening = _Opening(connection)
    leave_to_parent(opening)
    try:
        try:
            await _within(opener.connect_timeout, connection.connect(), opener)
        finally:
            await opener.release(connection)
        return _take_over(connection, deadline, on_push)
    except BaseException:
        # With nowait: no farewell to a server that may not answer.
        await connection.disconnect(nowait=True)
        raise


class _Opening:
    """What redis-py connects; its socket is the parent's already when it forks."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """The descriptor of the socket, once there is one."""
        writer = self._connection._writer
        return _number_of(None if writer is None else writer.transport)


async def _within(seconds: float, connecting: Awaitable[None], opener: Opener) -> None:
    try:
        await asyncio.wait_for(connecting, seconds)
    except (asyncio.TimeoutError, errors.TimeoutError) as error:
        text = f"no answer from {opener} within {seconds:g} s"
        raise errors.ConnectionError(text) from error


def _take_over(
    connection: Any, deadline: float, on_push: Push | None
) -> PipelinedConnection:
    loop = asyncio.get_running_loop()
    reader, writer = connection._reader, connection._writer
    pipe = PipelinedConnection(loop, deadline=deadline, on_push=on_push)
    # redis-py forgets the socket; the StreamWriter, whose end would close it, lives on.
    connection._reader = connection._writer = None
    pipe.adopt(writer.transport, writer, bytes(reader._buffer))
    if reader._eof:
        pipe.abort()  # the end was told to the reader, and won't be told again
    return pipe
