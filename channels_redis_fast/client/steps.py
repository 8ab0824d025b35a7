"""Commands in steps, on one connection: each depends on the replies to those before."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

from redis import exceptions as errors

from ..commands.command import Command
from .blocking_pool import BlockingConnection
from .connection import PipelinedConnection
from .topology import Owns

# Yields commands that are written together, and is sent their replies: errors of the
# server are values; others end it, which closes it.
Steps = Generator[list[Command], list[Any], None]

# What is run on each new connection, before any caller gets it: for a shard's index,
# whether the connection's server owns a key, and whether it has come by it since what
# is known of its history. None: nothing.
Restore = Callable[[int, Owns, bool], Steps | None]


async def run_steps(steps: Steps | None, connection: PipelinedConnection) -> None:
    """Runs all steps; raises redis-py's `ConnectionError`, and what the steps do."""
    if steps is None:
        return
    with contextlib.closing(steps):
        commands = next(steps, None)
        while commands is not None:
            commands = _next(steps, await _replies(connection, commands))


async def _replies(connection: PipelinedConnection, commands: list[Command]) -> Any:
    answers = [connection.call(command) for command in commands]
    replies: list[Any] = []
    try:
        for answer in answers:
            try:
                replies.append(await answer)
            except errors.ResponseError as error:
                replies.append(error)
    finally:
        for answer in answers[len(replies) :]:
            answer.cancel()  # nobody asks for those after an error
    return replies


def run_steps_blocking(
    steps: Steps | None, pipe: BlockingConnection, deadline: float
) -> None:
    """The same for a caller that blocks, until a `deadline` (`time.monotonic()`)."""
    if steps is None:
        return
    with contextlib.closing(steps):
        commands = next(steps, None)
        while commands is not None:
            pipe.write(commands, deadline)
            commands = _next(steps, [pipe.read(deadline) for _ in commands])


def _next(steps: Steps, replies: list[Any]) -> list[Command] | None:
    """What the steps write next; None: that was all."""
    try:
        return steps.send(replies)
    except StopIteration:
        return None
