"""An engine whose sends wait for no reply."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from ..commands.bulk import GroupSendMany, Outcome, SendMany
from ..commands.history import Append, append_alone
from ..commands.operations import Request
from . import unconfirmed
from .engine import LoopEngine
from .unconfirmed import UnconfirmedSends


class UnconfirmedEngine(LoopEngine):
    """Sends return when the message is in a connection's buffer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sends = UnconfirmedSends(self.shards, self._operations, self._counters)

    def send(self, request: Request, began: float = 0.0) -> Awaitable[None]:
        """As an `Engine`'s."""
        return self.sends.store(request, began=began)

    def publish(self, request: Request, began: float = 0.0) -> Awaitable[None]:
        """As an `Engine`'s."""
        return self.sends.publish(request, began)

    def append(
        self, append: Append, verb: bytes, began: float = 0.0
    ) -> Awaitable[None]:
        """As an `Engine`'s."""
        return self.sends.publish(append_alone(append, verb), began)

    def ask_members(
        self, request: Request, body: Any, began: float, excluded: frozenset[bytes]
    ) -> Awaitable[list[bytes] | None]:
        """Has the body sent to the members when they are known; None for the caller."""
        self._operations.codec.check(body)
        return self.sends.store_for_group(request, [body], excluded)

    def send_many(
        self, work: SendMany, began: float = 0.0, publications: Sequence[Request] = ()
    ) -> Awaitable[list[Outcome]]:
        """As an `Engine`'s; the outcomes until the messages are in a buffer."""
        return work.post(self.sends, began, publications)

    def group_send_many(self, work: GroupSendMany) -> Awaitable[list[Outcome]]:
        """As `send_many`."""
        return work.post(self.sends)

    def fills(self) -> list[float]:
        """Of each host the unanswered messages, as a part of how many there may be."""
        return [queue.load / unconfirmed._MOST for queue in self.sends._queues]

    async def flush_sends(self) -> None:
        """Returns when all that was sent is answered, or never will be."""
        await self.sends.settled()
