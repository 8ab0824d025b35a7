"""Messages for histories, those of one turn of an event loop together."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from redis import exceptions as errors

from ..commands.bulk import RunAll
from ..commands.errors import copy_of
from ..commands.history import Append, AppendBatch, append_alone
from ..commands.operations import Request

# Calls of one turn that began so close to each other (seconds) have one deadline.
_TOGETHER = 0.02


class Appended(NamedTuple):
    """The replies to a message, and to what was asked with it; errors as values."""

    reply: Any
    asked: Request | None = None
    answer: Any = None


class Appends:
    """Has messages that come in one turn of the loop appended by one command a group.

    For Redis most of what a script costs is the same for one message and for twenty.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        run_all: RunAll,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._loop = loop
        self._run_all = run_all
        self._spawn = spawn
        self._open: dict[bytes, _Turn] = {}  # by the key of the history

    def add(
        self, append: Append, verb: bytes, ask: Request | None, began: float
    ) -> asyncio.Future[Appended]:
        """Appends a message; what the first of a turn has to `ask` is asked for all."""
        key = append.plan.history
        turn = self._open.get(key)
        if turn is not None and turn.has_room_for(began):
            return turn.add(append, self._loop.create_future())
        turn = self._open[key] = _Turn(verb, ask, began)
        future = turn.add(append, self._loop.create_future())
        # The message is in it by now: an eager task factory runs it at once.
        turn.task = self._spawn(self._run(key, turn))
        turn.task.add_done_callback(functools.partial(self._ended, key, turn))
        return future

    async def _run(self, key: bytes, turn: _Turn) -> None:
        self._close(key, turn)
        requests = [turn.batch.request(), *filter(None, [turn.ask])]
        turn.end(*await self._run_all(requests, turn.began))

    def _ended(self, key: bytes, turn: _Turn, task: asyncio.Task[None]) -> None:
        """Also of a task that was cancelled, maybe before it began."""
        self._close(key, turn)
        turn.end(errors.ConnectionError("the command was cancelled; it may have run"))

    def _close(self, key: bytes, turn: _Turn) -> None:
        if self._open.get(key) is turn:
            del self._open[key]


class _Turn:
    """Messages of one turn, who waits for the replies, and what runs the command."""

    task: asyncio.Task[None]

    def __init__(self, verb: bytes, ask: Request | None, began: float) -> None:
        self.batch = AppendBatch(verb)
        self.ask = ask
        self.began = began
        self._waiting: list[asyncio.Future[Appended]] = []

    def has_room_for(self, began: float) -> bool:
        """Whether a call that began then can go with these, and have their deadline."""
        is_near = abs(began - self.began) < _TOGETHER
        return is_near and not (self.batch.is_full or self.task.done())

    def add(
        self, append: Append, future: asyncio.Future[Appended]
    ) -> asyncio.Future[Appended]:
        """Adds a message, and who waits for its replies, which are done at the end."""
        self.batch.add(append)
        self._waiting.append(future)
        return future

    def end(self, reply: Any, answer: Any = None) -> None:
        """Gives each its replies, unless it has them."""
        is_list = isinstance(reply, list)
        for number, future in enumerate(self._waiting):
            if not future.done():  # else it was cancelled
                one = reply[2 * number : 2 * number + 2] if is_list else reply
                future.set_result(Appended(_own(one), self.ask, _own(answer)))
        self._waiting.clear()


def _own(reply: Any) -> Any:
    """Each caller raises an error of its own."""
    return copy_of(reply) if isinstance(reply, Exception) else reply


async def append_now(
    run_all: RunAll, append: Append, verb: bytes, ask: Request | None, began: float
) -> Appended:
    """As `Appends` does it, of one message, at once."""
    requests = [append_alone(append, verb), *filter(None, [ask])]
    reply, *answers = await run_all(requests, began)
    return Appended(reply, ask, *answers)
