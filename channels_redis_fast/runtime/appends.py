"""Messages for histories, those of one turn of an event loop together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from ..commands.bulk import RunAll
from ..commands.errors import copy_of
from ..commands.history import Append, AppendBatch, append_alone
from ..commands.operations import Request


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
        spawn: Callable[[Coroutine[Any, Any, None]], object],
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
        if turn is None or turn.batch.is_full:
            turn = self._open[key] = _Turn(verb, ask, began)
            self._spawn(self._run(key, turn))
        turn.batch.add(append)
        future: asyncio.Future[Appended] = self._loop.create_future()
        turn.waiting.append(future)
        return future

    async def _run(self, key: bytes, turn: _Turn) -> None:
        if self._open.get(key) is turn:
            del self._open[key]
        requests = [turn.batch.request(), *filter(None, [turn.ask])]
        try:
            reply, *answers = await self._run_all(requests, turn.began)
        except BaseException:
            for future in turn.waiting:
                future.cancel()
            raise
        turn.end(reply, *answers)


class _Turn:
    """Messages of one turn, and who waits for the replies."""

    def __init__(self, verb: bytes, ask: Request | None, began: float) -> None:
        self.batch = AppendBatch(verb)
        self.ask = ask
        self.began = began
        self.waiting: list[asyncio.Future[Appended]] = []

    def end(self, reply: Any, answer: Any = None) -> None:
        """Gives each its replies."""
        is_list = isinstance(reply, list)
        for number, future in enumerate(self.waiting):
            if not future.done():  # else it was cancelled
                one = reply[2 * number : 2 * number + 2] if is_list else reply
                future.set_result(Appended(_own(one), self.ask, _own(answer)))


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
