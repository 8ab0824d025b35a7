"""A call's commands in the calling thread, blocking, for whom nobody else waits."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from ..client.blocking_pool import BlockingConnection
from ..client.blocking_shards import BlockingShards
from ..commands.command import Command
from ..commands.operations import Request
from .base_engine import Engine
from .memberships import Memberships

T = TypeVar("T")


def run_without_loop(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end without an event loop; it must wait for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError(
        "this call waits for an event loop: an overridden method does more than a "
        "blocking call can, or the running loop has connections of its own; await it"
    )


class BlockingEngine(Engine):
    """What a `LoopEngine` is to the calls of an event loop, for the time of one call.

    `command_timeout` (seconds) bounds it; of many messages each round trip, as long as
    they get on. Sends are confirmed: nobody would read the answers later.
    """

    def __init__(self, blocking: BlockingShards, command_timeout: float) -> None:
        self._blocking = blocking
        self._timeout = command_timeout

    async def run(self, request: Request, began: float = 0.0) -> Any:
        """As an `Engine`'s."""
        deadline = (began or time.monotonic()) + self._timeout
        return self._blocking.run(*request, deadline)

    async def run_all(self, requests: list[Request], began: float = 0.0) -> list[Any]:
        """As an `Engine`'s."""
        deadline = (began or time.monotonic()) + self._timeout
        return self._blocking.run_all(requests, deadline)

    async def unlink(self, pattern: bytes) -> None:
        """Deletes the keys that match a glob pattern."""
        self._blocking.unlink(pattern, self._timeout)


class Conversation:
    """A blocking connection for code that awaits replies; they are there at once."""

    def __init__(self, pipe: BlockingConnection, deadline: float) -> None:
        self._pipe = pipe
        self._deadline = deadline
        self._asked: deque[Answer] = deque()

    def call(self, command: Command) -> Answer:
        """Writes a command; the answer can be awaited."""
        self._pipe.write([command], self._deadline)
        answer = Answer(self._read)
        self._asked.append(answer)
        return answer

    def _read(self) -> None:
        self._asked.popleft().reply = self._pipe.read(self._deadline)


class Answer:
    """The reply to a command, read when it is awaited."""

    def __init__(self, read: Callable[[], None]) -> None:
        self.reply: Any = self  # until it is there
        self._read = read

    def __await__(self) -> Generator[Any, None, Any]:
        while self.reply is self:
            self._read()
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply
        yield  # a generator, if one that never waits

    def cancel(self) -> None:
        """Nothing: who doesn't read the replies gives the connection up."""


def restore(
    memberships: Memberships,
    index: int,
    pipe: BlockingConnection,
    owns: Callable[[bytes | str], bool],
    anew: bool,
    deadline: float,
) -> None:
    """Puts back into groups what a server lost, if this process has members."""
    if len(memberships):
        conversation: Any = Conversation(pipe, deadline)
        run_without_loop(memberships.restore(index, conversation, owns, anew))
