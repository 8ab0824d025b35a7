"""Publishing, in an event loop or in the calling thread."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any

from redis.exceptions import RedisError

from ..client.host_verbs import HostVerbs
from ..commands.bulk import Outcome, SendMany
from ..commands.command import Command
from ..commands.operations import Operations, Request
from .base_engine import Engine


class Publisher:
    """Sends payloads to whoever is subscribed to a name.

    `verbs`: the commands of each host.
    """

    def __init__(
        self,
        engine: Engine,
        operations: Operations,
        verbs: list[HostVerbs],
    ) -> None:
        self.engine = engine
        self._operations = operations
        self._verbs = verbs

    def publish(self, name: str, payload: bytes) -> Awaitable[Any]:
        """Sends a payload; raises redis-py's errors."""
        index = self._operations.shard_of(name)
        verbs = self._verbs[index]
        if not verbs.is_settled:
            return self._publish_first(index, name, payload)
        return self.engine.publish((index, (verbs.verbs.publish, name, payload)))

    async def send_all(self, work: SendMany, began: float = 0.0) -> list[Outcome]:
        """Sends all that is to be stored and published; the outcomes.

        Its call began at `began` (`time.monotonic()`; 0: now).
        """
        named = [(name, payload) for _, name, payload in work.publications]
        began = await self._learn((name for name, _ in named), began)
        requests = [self._publication(*one) for one in named]
        return await self.engine.send_many(work, began, requests)

    def _publication(self, name: str, payload: bytes) -> Request:
        index = self._operations.shard_of(name)
        return index, (self._verbs[index].verbs.publish, name, payload)

    async def _learn(self, names: Iterable[str], began: float) -> float:
        """Asks the hosts of these names for their commands; `began`, or now if asked.

        What is for a host that doesn't answer fails by itself.
        """
        if all(verbs.is_settled for verbs in self._verbs):
            return began
        began = began or monotonic()
        by_host = {self._operations.shard_of(name): name for name in names}
        for index, name in by_host.items():
            with suppress(RedisError):
                await self._ask(index, name, began)
        return began

    async def _ask(self, index: int, name: str, began: float) -> None:
        def run(command: Command) -> Awaitable[object]:
            return self.engine.run((index, command), began)

        await self._verbs[index].ask((self.engine, index), name, run)

    async def _publish_first(self, index: int, name: str, payload: bytes) -> Any:
        began = monotonic()
        await self._ask(index, name, began)
        return await self.engine.publish(self._publication(name, payload), began)
