"""Blocking round trips: commands for several servers, written before any is read."""

from __future__ import annotations

from typing import Any

from redis import exceptions as errors

from ..commands.command import Command
from .blocking_pool import BlockingConnection, BlockingPool


class Flight:
    """Commands for one server, written together; `replies` has errors as values."""

    def __init__(self, pool: BlockingPool, commands: list[Command]) -> None:
        self.pool = pool
        self.replies: list[Any] = []
        self.was_written = False
        self._commands = commands
        self._pipe: BlockingConnection | None = None

    def write(self, deadline: float) -> None:
        """Takes a connection and writes the commands."""
        try:
            self._pipe = self.pool.acquire(deadline)
            self.was_written = True
            self._pipe.write(self._commands, deadline)
        except errors.RedisError as error:
            self._fail(error)

    def read(self, deadline: float) -> None:
        """Reads the replies and gives the connection back."""
        if self._pipe is None:
            return
        try:
            for _ in self._commands:
                self.replies.append(self._pipe.read(deadline))
        except errors.RedisError as error:
            self._fail(error)
        else:
            # Ours no more before it is the pool's: `end` may run in between.
            pipe, self._pipe = self._pipe, None
            self.pool.release(pipe)

    def end(self) -> None:
        """Gives the connection up if its replies were not read."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _fail(self, error: errors.RedisError) -> None:
        self.end()
        missing = len(self._commands) - len(self.replies)
        self.replies += [error] * missing


def fly(flights: list[Flight], deadline: float) -> None:
    """Writes everything, then reads everything: one round trip."""
    try:
        for flight in flights:
            flight.write(deadline)
        for flight in flights:
            flight.read(deadline)
    finally:
        # An exception may come from anywhere: a signal handler, a greenlet's timeout.
        for flight in flights:
            flight.end()
