"""Requests of a blocking caller, written together and tried again together."""

from __future__ import annotations

import time
from typing import Any

from redis import exceptions as errors

from ..commands.command import Command
from ..commands.errors import is_ask
from ..commands.retry import Retry, not_overtaken
from ..commands.scripts import key_of
from .blocking_pool import BlockingPool
from .blocking_shard import BlockingShard
from .flights import Flight, fly


class Batch:
    """Requests on their way to their replies, in one round trip or several."""

    def __init__(
        self,
        shards: list[BlockingShard],
        requests: list[tuple[int, Command]],
        deadline: float,
        replies: list[Any] | None = None,
    ) -> None:
        now = time.monotonic()
        self.replies = replies or [None] * len(requests)
        self._shards = [shards[index] for index, _ in requests]
        self._retries = [Retry(command, now, deadline) for _, command in requests]
        self._deadline = deadline
        self._todo = list(range(len(requests)))
        self._unwritten: set[int] = set()

    def fly(self) -> None:
        """One round trip of what is to be done."""
        by_pool: dict[BlockingPool, list[int]] = {}
        self._unwritten.clear()
        for position in self._todo:
            try:
                by_pool.setdefault(self._pool(position), []).append(position)
            except errors.RedisError as error:
                self.replies[position] = error
                self._unwritten.add(position)
        flights = []
        for pool, positions in by_pool.items():
            commands = []
            for position in positions:
                if self._asks(position):
                    commands.append((b"ASKING",))
                commands.append(self._retries[position].command)
            flights.append(Flight(pool, commands))
        fly(flights, self._deadline)
        for flight, positions in zip(flights, by_pool.values(), strict=True):
            replies = iter(flight.replies)
            for position in positions:
                if self._asks(position):
                    next(replies)
                self.replies[position] = next(replies)
            if not flight.was_written:
                self._unwritten.update(positions)

    def complete(self) -> list[Any]:
        """The replies, when what may be tried again was; sleeps meanwhile."""
        while (pause := self.prepare_again()) is not None:
            if pause:
                time.sleep(pause)
            self.fly()
        return self.replies

    def prepare_again(self) -> float | None:
        """Seconds until the next round trip for what failed; None: all is done."""
        for position in self._todo:
            self._shards[position].note(self.replies[position])
        commands = [self._retries[p].command for p in self._todo]
        keep = not_overtaken(commands, [self.replies[p] for p in self._todo])
        pauses = {}
        for position in [self._todo[i] for i in keep]:
            pause = self._pause(position)
            if pause is not None:
                pauses[position] = pause
        self._todo = list(pauses)
        return max(pauses.values(), default=None)

    def _pause(self, position: int) -> float | None:
        """Seconds until a command that failed is tried again; None: its error stays."""
        error, retry = self.replies[position], self._retries[position]
        shard = self._shards[position]
        shard.learn(key_of(retry.command), error)
        pause = retry.after(
            error,
            time.monotonic(),
            written=position not in self._unwritten,
            stranger=shard.is_stranger,
            is_cluster=shard.is_cluster,
        )
        if pause is None:
            self.replies[position] = retry.error or error
        return pause

    def _pool(self, position: int) -> BlockingPool:
        shard, retry = self._shards[position], self._retries[position]
        if is_ask(retry.error):
            # This once: the slot is on its way, its other keys are where they were.
            return shard.pool_at(retry.error)
        return shard.pool_of(key_of(retry.command), self._deadline)

    def _asks(self, position: int) -> bool:
        return is_ask(self._retries[position].error)
