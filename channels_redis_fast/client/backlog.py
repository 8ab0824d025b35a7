"""Calls that could not be written at once, or were refused: all in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from redis import exceptions as errors

from ..commands.command import Command
from ..commands.errors import is_ask, is_demotion, is_passing, unanswered
from ..commands.retry import Retry
from ..commands.scripts import as_known, key_of
from .connection import PipelinedConnection
from .held_back import Receiver, Refused
from .reconnecting import ReconnectingConnection

_SOON = 0.05  # seconds


class Call:
    """A command until its answer, or until its deadline; the receiver of its outcomes.

    `written` is done when the command is in a connection's buffer; an error comes there
    if it never is. Who waits for it gives up by making it done.
    """

    __slots__ = (
        "_backlog",
        "_is_asked",
        "_is_over",
        "_receiver",
        "_timer",
        "_written",
        "is_probe",
        "is_trusted",
        "key",
        "not_before",
        "retry",
    )

    def __init__(
        self,
        backlog: Backlog,
        receiver: Receiver,
        command: Command,
        began: float,
        written: asyncio.Future[bool] | None = None,
    ) -> None:
        self.key = key_of(command)
        self.retry = Retry(command, began, began + backlog.timeout)
        self.not_before = 0.0  # when it may be tried again
        # One of those for a key that a server refused goes first, by itself: it might
        # take the next one, which would have overtaken this.
        self.is_probe = False
        self.is_trusted = False  # another one did, and was taken
        self._backlog = backlog
        self._receiver = receiver
        self._written = written
        self._is_over = False
        self._is_asked = False  # a server was, and has not answered
        left = self.retry.deadline - monotonic()
        self._timer = backlog.loop.call_later(left, self._expire)

    def done(self) -> bool:
        """Whether it is over, or nobody waits for it any more."""
        if self.is_probe:
            return False  # others wait for its answer
        return self._is_over or self._is_given_up()

    def _is_given_up(self) -> bool:
        given_up = self._written is not None and self._written.done()
        return given_up or self._receiver.done()

    def write(self, connection: PipelinedConnection) -> None:
        """Writes it on a connection that takes more."""
        # The text stays with it: a server that refuses it doesn't learn the script.
        command = self.retry.command = as_known(self.retry.command, connection.scripts)
        if is_ask(self.retry.error):
            connection.ask()
        try:
            connection.submit(self, command)
        except Exception as error:  # it can't be packed
            self.set_exception(error)
            return
        self._is_asked = True
        was_refused = is_passing(self.retry.error) or is_demotion(self.retry.error)
        self.is_probe = was_refused and not self.is_trusted
        if self._written is not None:
            self._written.set_result(connection.holds_much)
            self._written = None

    def set_result(self, reply: Any) -> None:
        """Takes the reply."""
        if self._is_over:
            return
        if self.retry.error is not None:
            self._backlog.on_taken()
        is_probe = self._end()
        if not self._is_given_up():
            self._receiver.set_result(reply)
        if is_probe:
            self._backlog.trust(self.key)

    def set_exception(self, error: Exception) -> None:
        """Takes the error that ends it."""
        if self._is_over:
            return
        is_probe = self._end()
        if not self._is_given_up():
            receiver: Any = self._written or self._receiver
            receiver.set_exception(error)
        if is_probe:
            self._backlog.go_on_soon()

    def _end(self) -> bool:
        """Whether others waited for its answer."""
        self._is_over = True
        self._timer.cancel()
        return self._answered()

    def _answered(self) -> bool:
        self._is_asked = False
        was_probe, self.is_probe = self.is_probe, False
        if was_probe:
            self._backlog.probed.discard(self.key)
        return was_probe

    def after(self, error: Exception, *, written: bool, **about: bool) -> bool:
        """Whether it is tried again after an error; else it ends by that."""
        now, self.is_trusted = monotonic(), False
        self._answered()
        pause = self.retry.after(error, now, written=written, **about)
        if pause is None:
            self.set_exception(self.retry.error or error)
            return False
        self.not_before = now + pause
        return True

    def _expire(self) -> None:
        refusal = None if self._is_asked else self.retry.error
        self.set_exception(refusal or unanswered(self._backlog.timeout))
        self._backlog.go_on_soon()  # with those that it held up


class Backlog:
    """What a shard's callers wait for, in the order in which their calls began.

    One is written as soon as its connection takes it, and those for its key that began
    before are. `link_of` says where a call goes: None while that isn't known, or raises
    redis-py's errors. `on_error` gets each call that is to be tried again, with its
    error, `on_taken` is told when a server took one. `timeout` (seconds) is for a whole
    call. `is_stranger`: whether the server was never seen as a primary.
    """

    def __init__(
        self,
        timeout: float,
        link_of: Callable[[Call], ReconnectingConnection | None],
        on_error: Callable[[Call, Exception], None],
        on_taken: Callable[[], None],
        is_stranger: Callable[[], bool],
        is_cluster: bool,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.timeout = timeout
        self.keys: set[bytes | str] = set()  # that nobody may overtake
        self.probed: set[bytes | str] = set()  # of those that one is tried for
        self.under_way: set[bytes | str] = set()  # of those at a former node
        self._trusted: set[bytes | str] = set()  # of those that one was taken for
        self.on_taken = on_taken
        self._link_of = link_of
        self._on_error = on_error
        self._is_stranger = is_stranger
        self._is_cluster = is_cluster
        self.calls: list[Call] = []
        self._is_going = self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def add(
        self,
        receiver: Receiver,
        command: Command,
        began: float = 0.0,
        written: asyncio.Future[bool] | None = None,
    ) -> None:
        """Writes a command in its turn; `began`: now, unless its call did earlier."""
        call = Call(self, receiver, command, began or monotonic(), written)
        if call.key in self.keys or not self._write(call):
            self.calls.append(call)
            self.keys.add(call.key)
            self._wake_at(call.not_before)

    def take_back(self, refused: Refused) -> None:
        """Takes what a connection wrote and got errors for: before all that waits."""
        calls = []
        for sent, error in refused:
            call = sent.receiver
            if not isinstance(call, Call) and sent.command is not None:
                call = Call(self, call, sent.command, sent.at)
            if isinstance(call, Call) and self._is_tried_again(call, error):
                calls.append(call)
        self.calls[:0] = calls
        self.keys.update(call.key for call in calls)
        self.go_on()

    def go_on(self) -> None:
        """Writes what can be written by now."""
        if self._is_going:
            return  # a call that failed has somebody else go on
        self._is_going, began = True, monotonic()
        waiting, self.calls = self.calls, []
        trusted, self._trusted = self._trusted, set()
        staying: list[Call] = []
        held = self.under_way.copy()
        for call in waiting:
            if call.done():
                continue
            if call.key in trusted:
                call.is_trusted, call.not_before = True, 0.0
            if call.key in held or call.key in self.probed or not self._write(call):
                held.add(call.key)
                staying.append(call)
        self.calls[:0] = staying  # before those that came meanwhile
        self.keys = {call.key for call in self.calls} | self.probed | self.under_way
        self._is_going = False
        moments = [call.not_before for call in self.calls]
        self._wake_at(min((one for one in moments if one >= began), default=0.0))

    def go_on_soon(self) -> None:
        """The same a little later: once for many who tell at about the same time."""
        self._wake_at(monotonic() + _SOON)

    def trust(self, key: bytes | str) -> None:
        """A server took again what is for a key: all that waits is written at once."""
        self._trusted.add(key)
        self._wake_at(monotonic())

    def close(self) -> None:
        """Fails all, and from now on what comes, or comes back from a connection."""
        self._is_closed = True
        for keys in self.keys, self.probed, self.under_way:
            keys.clear()
        self.go_on()
        self._cancel_timer()

    # Steps

    def _write(self, call: Call) -> bool:
        """Whether a call needn't wait any more: it is written, or has failed."""
        if self._is_closed:
            call.set_exception(errors.ConnectionError("this connection is closed"))
            return True
        if call.not_before > monotonic():
            return False
        try:
            link = self._link_of(call)
            if link is None:
                return False
            connection = link.usable()
        except errors.RedisError as error:  # nothing was written
            return not self._is_tried_again(call, error, written=False)
        if connection is None:
            return False
        call.write(connection)
        if call.is_probe:
            self.probed.add(call.key)
        return True

    def _is_tried_again(
        self, call: Call, error: Exception, *, written: bool = True
    ) -> bool:
        is_tried_again = call.after(
            error,
            written=written,
            stranger=self._is_stranger(),
            is_cluster=self._is_cluster,
        )
        if is_tried_again:
            self._on_error(call, error)
        return is_tried_again

    def _wake_at(self, moment: float) -> None:
        """Goes on then, unless it does so earlier; 0: when told."""
        if moment and (self._timer is None or moment < self._timer_at):
            self._cancel_timer()
            self._timer_at = moment
            self._timer = self.loop.call_later(moment - monotonic(), self._woken)

    def _woken(self) -> None:
        self._timer = None
        self.go_on()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
