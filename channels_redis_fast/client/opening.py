"""How a connection comes to be: redis-py opens it, and we take the pipe over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from redis import exceptions as errors

from .._logs import warn
from .._masking import Masked
from .clock import TIME
from .connection import PipelinedConnection, number_of
from .credentials import Tokens
from .forks import leave_to_parent
from .reply_queue import Push
from .timeouts import timeout


class Opener(Protocol):
    """A way to one server, as hosts.py describes it."""

    connect_timeout: float
    tokens: Tokens | None
    note_time: Callable[[object], None] | None

    def make_connection(self, *, pushes: bool = False) -> Any:
        """A new redis-py connection, not yet connected; for `pushes` or not."""

    async def connect(self, connection: Any) -> None:
        """Connects it; raises redis-py's errors."""

    def silence(self, seconds: float) -> errors.RedisError:
        """The error when nothing came for so long."""

    async def release(self, connection: Any) -> None:
        """Closes what finding the server left open beside the connection."""

    def explain(self, error: errors.RedisError) -> errors.RedisError:
        """An error reply of the server as callers get it."""


async def open_connection(
    opener: Opener, *, deadline: float, on_push: Push | None = None
) -> PipelinedConnection:
    """Connects through redis-py (TLS, AUTH, SELECT, Sentinel) and takes the pipe over.

    Raises redis-py's `ConnectionError` (also for silence: `connect_timeout`) and
    `AuthenticationError`.
    """
    connection = opener.make_connection(pushes=on_push is not None)
    tokens = opener.tokens
    known = tokens.version if tokens else 0
    opening = _Opening(connection)
    leave_to_parent(opening)
    try:
        try:
            await _within(opener.connect_timeout, opener.connect(connection), opener)
        finally:
            await opener.release(connection)
        pipe = PipelinedConnection(
            asyncio.get_running_loop(),
            deadline=deadline,
            on_push=on_push,
            explain=opener.explain,
        )
        _take_over(connection, pipe)
    except BaseException:
        # With nowait: no farewell to a server that may not answer.
        await connection.disconnect(nowait=True)
        raise
    if opener.note_time is not None:
        await _ask_time(pipe, opener.note_time)
    if tokens:
        tokens.add(pipe, authenticate, known)
    return pipe


def authenticate(pipe: PipelinedConnection, command: Masked[tuple[Any, ...]]) -> None:
    """Sends AUTH on a connection that is in use; may be called from any thread."""

    def send() -> None:
        if pipe.error is None:
            pipe.call(command.value).add_done_callback(_authenticated)

    with contextlib.suppress(RuntimeError):  # its loop is closed
        pipe.closed.get_loop().call_soon_threadsafe(send)


def _authenticated(answer: asyncio.Future[Any]) -> None:
    """What was authenticated before stays so: until the server ends it."""
    error = None if answer.cancelled() else answer.exception()
    if isinstance(error, (errors.ResponseError, errors.AuthenticationError)):
        warn("Redis refuses the new credentials: %s", error)


async def _ask_time(pipe: PipelinedConnection, note: Callable[[object], None]) -> None:
    try:
        note(await pipe.call(TIME))
    except errors.ResponseError:
        pass  # not allowed, or not now
    except BaseException:
        pipe.abort()
        raise


class _Opening:
    """What redis-py connects; its socket is the parent's already when it forks."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """The descriptor of the socket, once there is one."""
        writer = self._connection._writer
        return number_of(None if writer is None else writer.transport)


async def _within(seconds: float, connecting: Awaitable[None], opener: Opener) -> None:
    try:
        async with timeout(seconds):
            await connecting
        return
    except (asyncio.TimeoutError, errors.TimeoutError):
        pass  # its frames hold secrets
    raise opener.silence(seconds)


def _take_over(connection: Any, pipe: PipelinedConnection) -> None:
    reader, writer = connection._reader, connection._writer
    # redis-py forgets the socket; the StreamWriter, whose end would close it, lives on.
    connection._reader = connection._writer = None
    pipe.adopt(writer.transport, writer, bytes(reader._buffer))
    if reader._eof:
        pipe.abort()  # the end was told to the reader, and won't be told again
