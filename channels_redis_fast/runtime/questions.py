"""Asking Redis what it keeps of a group, once for all who want to know."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import monotonic

from redis import exceptions as errors

from ..commands.errors import copy_of
from ..commands.history import HistoryCommands
from ..mailboxes.followers import Followers
from .base_engine import Engine
from .engine import LoopEngine

Outcome = errors.RedisError | None


class Questions:
    """Asks for followers, and gives them the answers.

    `lock` guards all followers; `on_rest` is called when some still lack something.
    """

    def __init__(
        self,
        commands: HistoryCommands,
        lock: threading.RLock,
        on_rest: Callable[[Followers], None],
    ) -> None:
        self._commands = commands
        self._lock = lock
        self._on_rest = on_rest
        # Under way, by loop and group.
        self._asking: dict[tuple[object, str], asyncio.Future[Outcome]] = {}

    async def ask(self, engine: Engine, followers: Followers, began: float) -> None:
        """Returns when Redis was asked; an event loop's callers share one question.

        It may have begun before this call. Raises redis-py's errors.
        """
        if (error := await self.asked(engine, followers, began)) is not None:
            raise copy_of(error)

    async def ask_anew(self, engine: LoopEngine, followers: Followers) -> Outcome:
        """As `ask`, by a question that begins now; returns the error."""
        await self._under_way(engine, followers)
        return await self.asked(engine, followers)

    async def asked(
        self, engine: Engine, followers: Followers, began: float = 0.0
    ) -> Outcome:
        """As `ask`, but returns the error.

        For a caller that blocks it is part of a call that began then.
        """
        if not isinstance(engine, LoopEngine):
            return await self._fetch(engine, followers, began)
        if (outcome := await self._under_way(engine, followers)) is not None:
            return outcome[0]
        key = engine.loop, followers.group
        asking = self._asking[key] = engine.loop.create_future()
        error: Outcome = None
        try:
            error = await self._fetch(engine, followers)
        finally:
            del self._asking[key]
            asking.set_result(error)
        return error

    def ask_in_background(self, engine: LoopEngine, followers: Followers) -> None:
        """As `ask`, unless that is under way."""
        if (engine.loop, followers.group) not in self._asking:
            engine.spawn(self.asked(engine, followers))

    async def _under_way(
        self, engine: LoopEngine, followers: Followers
    ) -> tuple[Outcome] | None:
        """What came of a question that is under way; None: there is none."""
        asking = self._asking.get((engine.loop, followers.group))
        if asking is None:
            return None
        await asyncio.wait([asking])
        return (asking.result(),)

    async def _fetch(
        self, engine: Engine, followers: Followers, began: float = 0.0
    ) -> Outcome:
        try:
            while not await self._fill(engine, followers, began):
                pass
        except errors.RedisError as error:
            return error
        if not followers.is_settled:
            self._on_rest(followers)
        return None

    async def _fill(self, engine: Engine, followers: Followers, began: float) -> bool:
        with self._lock:
            question = followers.question()
        followers.asked_at = monotonic()
        followers.is_unsure = True  # whatever ends this
        request = self._commands.since(followers.group, question.after)
        found = self._commands.found(followers.group, await engine.run(request, began))
        with self._lock:
            here = asyncio._get_running_loop()
            return followers.fill(question, found.position, found.entries, here)
