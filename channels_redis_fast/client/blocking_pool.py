"""Blocking connections: redis-py opens them, hiredis parses, one caller at a time."""

from __future__ import annotations

import contextlib
import functools
import math
import select
import ssl
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import hiredis
from redis import exceptions as errors

from ..commands.command import Command
from ..commands.errors import reply_error
from ..commands.scripts import as_known
from .clock import TIME
from .forks import Step, bury, leave_to_parent, on_fork
from .host import Host

_NOT_YET = object()
_CHUNK = 1 << 16

# A connection that was idle for so long (seconds) is asked whether it still is one:
# who forgets connections without a word, a firewall or a host that went, does it to
# idle ones.
_ASK_AFTER = 10.0
# And one that nobody needed for so long is closed.
_CLOSE_AFTER = 60.0
# How early or late a timeout may come (seconds): to set it anew is a system call.
_ROUGHLY = 0.001


class BlockingConnection:
    """A socket to one server. Errors of the server are replies, others are raised."""

    def __init__(self, host: Host, socket: Any) -> None:
        self.idle_since = time.monotonic()
        self.client_id: int | None = None
        self.token = 0  # which of its host's credentials it was authenticated with
        self._scripts: set[bytes] = set()  # that were sent here as a text
        self._host = host
        self._socket = socket
        self._timeout = math.inf  # seconds, of the socket; unknown yet
        self._is_readable = _look_at(socket)
        self._reader = hiredis.Reader(
            protocolError=errors.InvalidResponse,
            replyError=lambda text: host.explain(reply_error(text)),
            notEnoughData=_NOT_YET,
        )
        # In garbage that is a cycle the socket's own finaliser might come first, and
        # warn.
        weakref.finalize(self, socket.close)
        leave_to_parent(self)

    def fileno(self) -> int:
        """The descriptor of its socket; -1 when closed."""
        number: int = self._socket.fileno()
        return number

    def write(self, commands: Iterable[Command], deadline: float) -> None:
        """Sends commands; raises redis-py's errors for connections."""
        known = (as_known(command, self._scripts) for command in commands)
        packed = b"".join(map(hiredis.pack_command, known))
        try:
            self._wait_until(deadline)
            self._socket.sendall(packed)
        except OSError as error:
            raise self._failure(error) from error

    def read(self, deadline: float) -> Any:
        """The next reply, an exception if it is an error."""
        while (reply := self._reader.gets()) is _NOT_YET:
            try:
                self._wait_until(deadline)
                self._feed(self._socket.recv(_CHUNK))
            except OSError as error:
                raise self._failure(error) from error
        if isinstance(reply, errors.NoScriptError):
            self._scripts.clear()  # the next one gets the text
        return reply

    def try_read(self) -> tuple[bool, Any]:
        """Whether there is a reply already, and which."""
        while (reply := self._reader.gets()) is _NOT_YET:
            try:
                self._socket.settimeout(0)
                self._timeout = math.inf
                self._feed(self._socket.recv(_CHUNK))
            except (BlockingIOError, ssl.SSLWantReadError):
                return False, None
            except OSError as error:
                raise self._failure(error) from error
        return True, reply

    def is_quiet(self) -> bool:
        """Whether nothing came that nobody asked for, such as the end."""
        if not (self._reader.has_data() or self._is_readable()):
            return True  # a read would say so by an exception, which takes its time
        try:
            return not self.try_read()[0]
        except errors.RedisError:
            return False

    def close(self) -> None:
        """Closes the socket; TLS says no goodbye, so a forked child may, too."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _feed(self, data: bytes) -> None:
        if not data:
            raise errors.ConnectionError(f"{self._host} closed the connection")
        self._reader.feed(data)

    def _wait_until(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if abs(left - self._timeout) > _ROUGHLY:
            self._socket.settimeout(left)
            self._timeout = left

    def _failure(self, error: OSError) -> errors.RedisError:
        if isinstance(error, TimeoutError):
            return errors.TimeoutError(f"no answer from {self._host} in time")
        return errors.ConnectionError(f"lost {self._host}: {error}")


def _look_at(socket: Any) -> Callable[[], Any]:
    """A function that says without waiting whether a socket has something to read."""
    if not hasattr(select, "poll"):  # on Windows
        return lambda: True  # a read tells
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return functools.partial(poll.poll, 0)


class BlockingPool:
    """The connections to one server that nobody uses now; last in, first out.

    `greet` runs on each new connection. There is no lock, whose holder a signal
    handler may have interrupted: a list's `append` and `pop` are enough.
    """

    def __init__(
        self,
        host: Host,
        greet: Callable[[BlockingPool, BlockingConnection, float], None] | None = None,
    ) -> None:
        self.host = host
        self._greet = greet
        self._idle: list[BlockingConnection] = []
        _pools.add(self)

    @property
    def has_idle(self) -> bool:
        """Whether there is a connection."""
        return bool(self._idle)

    def acquire(self, deadline: float) -> BlockingConnection:
        """A connection for the caller alone; raises redis-py's errors.

        One that its server closed meanwhile is found out before anything is written.
        """
        while True:
            try:
                pipe = self._idle.pop()
            except IndexError:
                return self._open(deadline)
            if (
                pipe.is_quiet()
                and self._answers(pipe, deadline)
                and self._is_authenticated(pipe, deadline)
            ):
                return pipe
            pipe.close()

    def release(self, pipe: BlockingConnection) -> None:
        """Takes a connection back, on which no reply is missing."""
        now = pipe.idle_since = time.monotonic()
        self._idle.append(pipe)
        try:
            if now - self._idle[0].idle_since > _CLOSE_AFTER:
                self._idle.pop(0).close()
        except IndexError:  # other threads took them
            pass

    def ask(self, command: Command, deadline: float) -> Any:
        """The reply to a command; an exception if it is an error, or none came."""
        try:
            pipe = self.acquire(deadline)
            try:
                pipe.write((command,), deadline)
                reply = pipe.read(deadline)
            except BaseException:  # also of a signal handler, or a greenlet's timeout
                pipe.close()
                raise
        except errors.RedisError as error:
            return error
        self.release(pipe)
        return reply

    def clear(self) -> None:
        """Closes them."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _open(self, deadline: float) -> BlockingConnection:
        tokens = self.host.tokens
        token = tokens.version if tokens else 0
        pipe = BlockingConnection(self.host, self.host.open_socket(deadline))
        pipe.token = token
        try:
            if self.host.note_time is not None:
                pipe.write((TIME,), deadline)
                self.host.note_time(pipe.read(deadline))
            if self._greet is not None:
                self._greet(self, pipe, deadline)
        except BaseException:
            pipe.close()
            raise
        return pipe

    def _answers(self, pipe: BlockingConnection, deadline: float) -> bool:
        """Whether a connection that was idle for long still is one."""
        now = time.monotonic()
        if now - pipe.idle_since < _ASK_AFTER:
            return True
        until = now + max(0.0, deadline - now) / 2  # the rest is for another one
        try:
            pipe.write([(b"PING",)], until)
            pipe.read(until)
        except errors.RedisError:
            self.clear()  # they are no younger
            return False
        return True

    def _is_authenticated(self, pipe: BlockingConnection, deadline: float) -> bool:
        """Whether a connection is, by the newest token of a streaming provider."""
        tokens = self.host.tokens
        if tokens is None or tokens.version == pipe.token:
            return True
        pipe.token = tokens.version
        try:
            pipe.write([tokens.command.value], deadline)
            return not isinstance(pipe.read(deadline), Exception)
        except errors.RedisError:
            return False

    def leave_to_parent(self) -> None:
        """Forgets all, in a child: they are the parent's."""
        bury(self._idle)
        self._idle = []


def _leave_all_to_parent() -> None:
    for pool in list(_pools):
        pool.leave_to_parent()


_pools: weakref.WeakSet[BlockingPool] = weakref.WeakSet()
on_fork(Step.POOLS, _leave_all_to_parent)
