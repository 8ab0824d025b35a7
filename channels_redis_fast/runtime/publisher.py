"""Publishing, in an event loop or in the calling thread."""

from __future__ import annotations

from collections.abc import Awaitable
from time import monotonic
from typing import Any

from redis.exceptions import RedisError

from ..client.host_verbs import HostVerbs
from ..commands.bulk import Outcome, SendMany
from ..commands.command import Command
from ..commands.errors import value_of
from ..commands.history import Append, append_alone
from ..commands.operations import Operations, Request, send_result
from ..types import SendResult
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

    def result(self, name: str, reply: int | None) -> SendResult | None:
        """What the reply to a publication says; None: nobody waited for one."""
        if reply is None:
            return None
        counts_all = self._verbs[self._operations.shard_of(name)].counts_all
        return send_result(None, reply if counts_all else None, 0)

    async def append(self, name: str, append: Append) -> SendResult | None:
        """Appends to the history of a group of this name, which publishes, too."""
        index, began = self._operations.shard_of(name), 0.0
        verbs = self._verbs[index]
        if not verbs.is_settled:
            began = monotonic()
            await self._ask(index, name, began)
        found = await self.engine.append(append, verbs.verbs.publish, began)
        return self.result(name, None if found is None else value_of(found.reply)[1])

    async def send_all(self, work: SendMany, began: float = 0.0) -> list[Outcome]:
        """Sends all that is to be stored and published; the outcomes.

        Its call began at `began` (`time.monotonic()`; 0: now).
        """
        if not all(verbs.is_settled for verbs in self._verbs):
            began = await self._learn(work, began or monotonic())
        requests = [
            self._publication(name, payload) for _, name, payload in work.publications
        ]
        return await self.engine.send_many(work, began, requests)

    def _publication(self, name: str, payload: bytes | Append) -> Request:
        index = self._operations.shard_of(name)
        verb = self._verbs[index].verbs.publish
        if isinstance(payload, Append):
            return append_alone(payload, verb)
        return index, (verb, name, payload)

    async def _learn(self, work: SendMany, began: float) -> float:
        """Asks the hosts that it publishes at; when the rest of the call began.

        What is for a host that doesn't answer fails by that. The others have as long
        as if it had answered at once.
        """
        by_host: dict[int, dict[int, str]] = {}
        for number, name, _ in work.publications:
            by_host.setdefault(self._operations.shard_of(name), {})[number] = name
        for index, names in by_host.items():
            try:
                await self._ask(index, next(iter(names.values())), began)
            except RedisError as error:
                work.give_up({*names}, error)
                began = monotonic()
        return began

    async def _ask(self, index: int, name: str, began: float) -> None:
        def run(command: Command) -> Awaitable[object]:
            return self.engine.run((index, command), began)

        await self._verbs[index].ask((self.engine, index), name, run)

    async def _publish_first(self, index: int, name: str, payload: bytes) -> Any:
        began = monotonic()
        await self._ask(index, name, began)
        return await self.engine.publish(self._publication(name, payload), began)
