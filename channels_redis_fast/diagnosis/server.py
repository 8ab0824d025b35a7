"""One server of a layer, and what it says about itself."""

from __future__ import annotations

import time
from typing import Any

from redis import exceptions as errors

from ..client.blocking_pool import BlockingPool
from ..commands.errors import value_of


class Server:
    """Asks one server; each question has so many seconds."""

    def __init__(self, pool: BlockingPool, seconds: float) -> None:
        self.name = str(pool.host)
        self._pool = pool
        self._seconds = seconds

    def ask(self, *words: bytes | str) -> Any:
        """The reply to a command; raises redis-py's errors."""
        return value_of(self.try_(*words))

    def try_(self, *words: bytes | str) -> Any:
        """The same; an error is a value."""
        return self._pool.ask(words, self._deadline)

    def try_alone(self, *words: bytes | str) -> Any:
        """The same on a connection that is closed then, as its state is another."""
        try:
            pipe = self._pool.acquire(self._deadline)
        except errors.RedisError as error:
            return error
        try:
            pipe.write([words], self._deadline)
            return pipe.read(self._deadline)
        except errors.RedisError as error:
            return error
        finally:
            pipe.close()

    def info(self) -> dict[str, str]:
        """All facts of INFO by their names."""
        lines = self.ask("INFO").decode("utf-8", "replace").splitlines()
        facts = (line.partition(":") for line in lines if not line.startswith("#"))
        return {name: value for name, _, value in facts}

    def setting(self, name: str) -> str | None:
        """A setting, by CONFIG GET; None: the server has none of this name."""
        reply = self.ask("CONFIG", "GET", name)
        return reply[1].decode() if reply else None

    def clock(self) -> float:
        """How far (seconds) its clock is ahead of ours."""
        before = time.time()
        seconds, microseconds = self.ask("TIME")
        return int(seconds) + int(microseconds) / 1e6 - (before + time.time()) / 2

    @property
    def _deadline(self) -> float:
        return time.monotonic() + self._seconds
