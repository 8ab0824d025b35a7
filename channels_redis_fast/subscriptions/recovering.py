"""What is asked for when names are heard again, before that ends an outage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from .outage import OutageNotifier
from .subscriber import Subscriber


class Engine(Protocol):
    """What runs a layer's work in one event loop."""

    def spawn(self, work: Any) -> object:
        """Runs work that outlives its caller; the end of the loop ends it."""


class Recovering:
    """Has `recover` called with the names of a subscriber that was lost, when it is up.

    Until it is done the outage goes on.
    """

    def __init__(
        self,
        engine: Engine,
        outage: OutageNotifier,
        recover: Callable[[list[bytes]], Awaitable[None]],
    ) -> None:
        self._engine = engine
        self._outage = outage
        self._recover = recover
        self._busy: set[Subscriber] = set()

    def back(self, subscriber: Subscriber) -> None:
        """Notes that a subscriber is up (again)."""
        if subscriber in self._busy:
            return
        if self._outage.is_lost(subscriber):
            self._busy.add(subscriber)
            self._engine.spawn(self._recovered(subscriber))
        else:
            self._outage.back(subscriber)

    async def _recovered(self, subscriber: Subscriber) -> None:
        try:
            await self._recover(list(subscriber.names))
        finally:
            self._busy.discard(subscriber)
        if subscriber.is_up:
            self._outage.back(subscriber)
