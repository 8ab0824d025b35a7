"""The commands for one entry of `hosts`: written in order, tried again, answered."""

from __future__ import annotations

import asyncio
import functools
import math
import weakref
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from redis import exceptions as errors

from ..commands.command import Command
from ..commands.errors import is_demotion, is_passing
from ..commands.scripts import EVALSHA, as_known, key_of
from .backlog import Backlog, Call
from .connection import PipelinedConnection
from .held_back import Receiver, Refused
from .host import Host
from .reconnecting import ReconnectingConnection
from .round_trips import time_trip
from .shard_connections import ShardConnections

# A call's second step may end so much of `command_timeout` late.
_SLACK = 0.02
# So often (seconds) a round trip is timed on each connection that is in use.
_TIME_EVERY = 1.0


class ShardCommands(ShardConnections):
    """Runs commands at the servers of a host."""

    is_cluster = False

    def __init__(self, host: Host, command_timeout: float) -> None:
        super().__init__(host, command_timeout)
        # The links that all callers share; readers and subscribers have their own.
        self._shared: weakref.WeakSet[ReconnectingConnection] = weakref.WeakSet()
        self._time_at = 0.0
        self._backlog = Backlog(
            command_timeout,
            self._link_of,
            self._heed,
            self.health.taken,
            self.is_stranger,
            self.is_cluster,
        )

    def run(self, command: Command, began: float = 0.0) -> asyncio.Future[Any]:
        """The reply to a command, within `command_timeout` of its call.

        That began at `began` (`time.monotonic()`; 0: now). Raises redis-py's
        `ConnectionError` when the connection breaks or is not there, and what Redis
        answers. What may be tried again is, in its place: in one event loop commands
        are written in the order in which they were given here, as far as they are for
        one server or for one key.
        """
        future = self._loop.create_future()
        connection = self._ready(command)
        if connection is None or (began and self._is_late(began)):
            self._backlog.add(future, command, began)
        else:
            if command[0] is EVALSHA and command[1] not in connection.scripts:
                command = as_known(command, connection.scripts)
            connection.submit(future, command)
        return future

    async def run_all(self, commands: list[Command], began: float = 0.0) -> list[Any]:
        """The replies to commands written together; an error stands in its place."""
        futures = [self.run(command, began) for command in commands]
        try:
            return [await _outcome(future) for future in futures]
        except BaseException:  # a cancellation: nobody will ask for the others
            for future in futures:
                if not future.cancel() and not future.cancelled():
                    future.exception()  # has been seen
            raise

    # For stats

    @property
    def state(self) -> str:
        """How its host is; as in `HostStats`."""
        if self.health.is_down:
            return "down"
        if self.health.is_refusing:
            return "refusing"
        connected = any(link.connection is not None for link in list(self._links))
        return "up" if connected else "unused"

    def unanswered(self) -> tuple[int, float]:
        """How many commands have no reply yet, also those not written.

        And when the oldest was given (`time.monotonic()`), infinite if there is none.
        """
        waiting = list(self._backlog.calls)
        count, oldest = len(waiting), [call.retry.began for call in waiting]
        for link in list(self._shared):
            if (connection := link.connection) is not None:
                written, first = connection.unanswered()
                count += written
                oldest.append(first)
        return count, min(oldest, default=math.inf)

    def tidy(self) -> None:
        """Also times a round trip on what callers share, once a second."""
        super().tidy()
        if (now := monotonic()) >= self._time_at:
            self._time_at = now + _TIME_EVERY
            for link in list(self._shared):
                if link.connection is not None:
                    time_trip(link.connection, self.host.traffic.roundtrips.observe)

    # For those who don't wait for replies

    def post(self, command: Command, receipt: Receiver) -> bool | None:
        """Queues a command whose outcome a receipt takes; None when nothing takes it.

        True when so much is queued that the caller should let the loop write it.
        """
        connection = self._ready(command)
        if connection is None:
            return None
        connection.submit(receipt, as_known(command, connection.scripts))
        return connection.holds_much

    def post_later(
        self,
        command: Command,
        receipt: Receiver,
        written: asyncio.Future[bool] | None = None,
    ) -> None:
        """Queues a command in its turn; `written` is done then, or has the error."""
        self._backlog.add(receipt, command, written=written)

    async def aclose(self) -> None:
        """Fails what waits, and closes every connection."""
        self._backlog.close()
        await super().aclose()

    # Where a command goes

    def is_stranger(self) -> bool:
        """Whether nothing says that the server is, or was, a primary."""
        raise NotImplementedError

    def _ready(self, command: Command) -> PipelinedConnection | None:
        """The connection that takes a command now; None if others come first."""
        raise NotImplementedError

    def _link_of(self, call: Call) -> ReconnectingConnection | None:
        """Where a call that waits goes; None: not known yet."""
        raise NotImplementedError

    def _usable(
        self, link: ReconnectingConnection, command: Command
    ) -> PipelinedConnection | None:
        connection, keys = link.connection, self._backlog.keys
        if connection is None or connection.paused:
            return None
        return None if keys and key_of(command) in keys else connection

    # What was refused

    def _refused(
        self,
        link: ReconnectingConnection,
        connection: PipelinedConnection,
        refused: Refused,
    ) -> None:
        """Tries again what a connection wrote; all of it is answered by now."""
        self._backlog.take_back(refused)
        demotions = [error for _, error in refused if is_demotion(error)]
        if demotions:
            if link.connection is connection:
                self.reopen(link, demotions[0])
            self._backlog.go_on()

    def _heed(self, call: Call, error: Exception) -> None:
        """Draws conclusions from the error of a call that is tried again."""
        self._note_refusal(error)

    def _note_refusal(self, error: Exception) -> None:
        if is_passing(error) or is_demotion(error):
            self.health.refused(error)

    # Steps

    def _command_link(
        self,
        open_: Callable[[], Awaitable[PipelinedConnection]],
        greet: Callable[[PipelinedConnection], Awaitable[None]],
        on_down: Callable[[Exception], None] | None = None,
        eager: bool = False,
    ) -> ReconnectingConnection:
        """A link for commands: what waits for it is written before anything newer."""

        def ready() -> None:
            if link.connection is not None:
                link.connection.on_refused = functools.partial(self._refused, link)
                link.connection.on_resumed = lambda _: self._backlog.go_on()
            self._backlog.go_on()

        def down(error: Exception) -> None:
            if on_down is not None:
                on_down(error)
            self._backlog.go_on()

        link = self._new_link(open_, greet, ready, down, eager)
        link.on_cancelled = self._backlog.go_on
        self._shared.add(link)
        return link

    def _is_late(self, began: float) -> bool:
        """Whether a call's next step needs a deadline of its own."""
        return monotonic() - began > self.command_timeout * _SLACK


async def _outcome(future: asyncio.Future[Any]) -> Any:
    try:
        return await future
    except errors.RedisError as error:
        return error
