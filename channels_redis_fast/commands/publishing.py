"""Publishing, for both ways to run commands."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Coroutine
from typing import Any, NamedTuple

from redis import exceptions as errors

from .operations import Operations, Request


class Verbs(NamedTuple):
    """The commands of one kind of Pub/Sub."""

    subscribe: bytes
    unsubscribe: bytes
    publish: bytes


CLASSIC = Verbs(b"SUBSCRIBE", b"UNSUBSCRIBE", b"PUBLISH")
SHARDED = Verbs(b"SSUBSCRIBE", b"SUNSUBSCRIBE", b"SPUBLISH")


_TOO_OLD = re.compile("unknown command .s(subscribe|publish)", re.IGNORECASE)


def is_too_old(error: BaseException) -> bool:
    """Whether the server doesn't know sharded Pub/Sub."""
    return isinstance(error, errors.ResponseError) and bool(_TOO_OLD.search(str(error)))


class Publisher:
    """Sends payloads to whoever is subscribed to a name."""

    shards: Any
    run_all: Any
    outbox: Any  # for those who wait for no answer, if there is one
    _post: Any
    _operations: Operations
    _verbs: list[Verbs]  # by shard

    def publish(self, name: str, payload: bytes) -> Awaitable[Any]:
        """Sends a payload."""
        if self.outbox is not None:
            posting: Coroutine[Any, Any, None] = self._post(name, payload)
            return posting
        index = self._operations.shard_of(name)
        if self._verbs[index] is CLASSIC:
            run: Awaitable[Any] = self.shards[index].run(
                (CLASSIC.publish, name, payload)
            )
            return run
        return self._publish_sharded(index, name, payload)

    async def run_many(self, requests: list[Request], began: float = 0.0) -> list[Any]:
        """The replies to publications and other requests, each key's in order."""
        replies: list[Any] = await self.run_all(requests, began)
        old = [i for i, reply in enumerate(replies) if is_too_old(reply)]
        if old:
            for i in old:
                self._verbs[requests[i][0]] = CLASSIC
            again = [self.publication(*requests[i][1][1:]) for i in old]
            later = await self.run_all(again, began)
            for i, reply in zip(old, later, strict=True):
                replies[i] = reply
        return replies

    def publication(self, name: str, payload: bytes) -> Request:
        """The command that sends a payload."""
        index = self._operations.shard_of(name)
        return index, (self._verbs[index].publish, name, payload)

    async def _publish_sharded(self, index: int, name: str, payload: bytes) -> None:
        try:
            await self.shards[index].run((SHARDED.publish, name, payload))
        except errors.ResponseError as error:
            if not is_too_old(error):
                raise
            self._verbs[index] = CLASSIC
            await self.publish(name, payload)
