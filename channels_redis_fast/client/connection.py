"""One pipelined connection to one server, whose replies hiredis parses."""

from __future__ import annotations

import asyncio
import itertools
import math
import selectors
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

import hiredis
from redis import exceptions as errors

from ..commands.command import Command
from ..commands.errors import Kind, kind_of, reply_error, unanswered
from .forks import leave_to_parent
from .held_back import HeldBack, Receiver, Refused, Sent, tell

Push = Callable[[list[Any]], None]
Explain = Callable[[errors.RedisError], errors.RedisError]

# Kinds of messages that a subscribed connection gets without asking (RESP2). The last
# one also answers SUNSUBSCRIBE, which has no reply of its own, and looks the same then.
_PUSHES = frozenset((b"message", b"smessage", b"sunsubscribe"))

_NOT_YET = object()
_CHECKS_PER_DEADLINE = 5
# Of these it is known that they did not run.
_REFUSALS = (Kind.PASSING, Kind.DEMOTED, Kind.MOVED, Kind.UNKNOWN)

# Who doesn't wait for answers lets the event loop write after so many commands, and
# after one of so many bytes.
_MANY = 128
_LARGE = 16 * 1024


class PipelinedConnection(asyncio.Protocol):
    """Many callers share one socket: a write per loop iteration, replies in order.

    `deadline` (seconds) is how long it may be silent while an answer is missing; then
    it counts as dead. An idle connection is pinged about as often. A future of `submit`
    waits no longer either, whatever else comes: it gets an error, by itself.
    With `on_push`, messages of subscriptions go there. `explain` says what an error
    reply means; callers get what it returns. `on_lost` is called once,
    with this connection, when it is gone, after every waiting caller got its error.

    Commands of `submit` that may be tried again go to `on_refused`, in order, when all
    that was written is answered, or lost with the connection. Meanwhile it is `paused`,
    as later ones must not overtake them; `on_resumed` is called when it isn't any more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        deadline: float,
        on_push: Push | None = None,
        explain: Explain = lambda error: error,
    ) -> None:
        self.paused = False
        self.server = ""  # its host in words, for those who share connections
        self.error: errors.RedisError | None = None  # why it is gone
        self.heard = monotonic()  # when something came last
        self.on_lost: Callable[[PipelinedConnection], None] | None = None
        self.on_refused: Callable[[PipelinedConnection, Refused], None] = _tell
        self.on_resumed: Callable[[PipelinedConnection], None] | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        self.scripts: set[bytes] = set()  # that were sent here as a text
        self._loop = loop
        self._deadline = deadline
        self._on_push = on_push
        self._buffer: list[bytes] = []
        # The last command had its write for itself: the next one, if no answer is
        # missing then, doesn't wait for company.
        self._alone = False
        self._waiting: deque[tuple[Any, Command | None, float]] = deque()  # as Sent
        self._held = HeldBack()  # what was refused since all was answered
        self._is_full = False  # the transport's buffer
        self._drained: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._check_at = 0.0
        self._transport: asyncio.Transport | None = None
        self._keepalive: Any = None
        self._reader = hiredis.Reader(
            protocolError=errors.InvalidResponse,
            replyError=lambda text: explain(reply_error(text)),
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

    def submit(self, receiver: Receiver, command: Command) -> bool:
        """Queues a command that `on_refused` may get. Not to be used while `paused`.

        True when so much is queued that the caller should let the loop write it.
        """
        self.write(command)
        self._waiting.append((receiver, command, monotonic()))
        buffer = self._buffer
        return bool(buffer) and (len(buffer) >= _MANY or len(buffer[-1]) >= _LARGE)

    def ask(self) -> None:
        """Queues ASKING, which lets the next command into a slot on its way here."""
        self.call((b"ASKING",)).add_done_callback(_consume)

    def expect(self, receiver: Receiver) -> None:
        """Gives a receiver the next reply: what it got was of a command without one."""
        self._waiting.appendleft((receiver, None, monotonic()))

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

    @property
    def is_idle(self) -> bool:
        """Whether no command waits for its outcome."""
        return not self._waiting and not self._held.by_key

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
        held = self._held.by_key
        while (reply := gets()) is not _NOT_YET:
            if on_push is not None and _is_push(reply):
                on_push(reply)
                continue
            receiver, command, at = waiting.popleft()
            if receiver.done():
                continue  # its caller was cancelled
            if isinstance(reply, errors.RedisError):
                self._refuse(Sent(receiver, command, at), reply)
                continue
            if held and self._held.overtakes(Sent(receiver, command, at)):
                continue
            receiver.set_result(reply)
        if held and not waiting:
            self._hand_back()

    def _refuse(self, sent: Sent, error: errors.RedisError) -> None:
        kind = kind_of(error)
        if kind is Kind.UNKNOWN:
            self.scripts.clear()
        if sent.command is None or kind not in _REFUSALS:
            sent.receiver.set_exception(error)
        else:
            self._keep(sent, sent.command, error)

    def _keep(self, sent: Sent, command: Command, error: Exception) -> None:
        """Holds back what may be tried again, until all is answered."""
        self.paused = True
        self._held.keep(sent, command, error)

    def _hand_back(self) -> None:
        """Gives up what was refused, in order."""
        self.on_refused(self, self._held.release())
        self._resume()

    def _resume(self) -> None:
        if self._is_full or self._held.by_key or self.error is not None:
            return
        self.paused = False
        self._wake_writers()
        if self.on_resumed is not None:
            self.on_resumed(self)

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
            again = min(again, left, self._tell_late(oldest))
        elif self.heard <= oldest:
            # The reply is waited for like any other.
            self.call((b"PING",)).add_done_callback(_consume)
        self._check_in(min(again, self._held.tell_late(oldest)))

    def _tell_late(self, oldest: float) -> float:
        """Tells callers who wait since before then; seconds until the next is late.

        The others get their answers, which keep coming.
        """
        for sent in itertools.starmap(Sent, self._waiting):
            if sent.at > oldest:
                return sent.at - oldest
            if sent.is_late(oldest):
                sent.receiver.set_exception(unanswered(self._deadline))
        return math.inf

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
        self.paused = True
        while self._waiting:
            sent = Sent(*self._waiting.popleft())
            if sent.receiver.done():
                continue
            if sent.command is None:
                sent.receiver.set_exception(self._failure())
            else:
                self._keep(sent, sent.command, self._failure())
        if self._held.by_key:
            self._hand_back()
        self._wake_writers()
        if self.on_lost is not None:
            self.on_lost(self)

    def _wake_writers(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None


def _tell(_: PipelinedConnection, refused: Refused) -> None:
    tell(refused)


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


def _is_push(reply: Any) -> bool:
    # By the newer protocol a push is of a subclass.
    return isinstance(reply, list) and bool(reply) and reply[0] in _PUSHES


def _consume(future: asyncio.Future[Any]) -> None:
    """Marks the outcome of a future that nobody awaits as seen."""
    if not future.cancelled():
        future.exception()
