"""What one Pub/Sub layer listens to in one event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from redis import exceptions as errors

from ..client.timeouts import timeout
from ..mailboxes.delivery import Delivery
from ..wire.codec import Message
from . import placement
from .placement import Placement
from .table import SubscriptionTable

# Seconds until a loop that stood still has read what came meanwhile, most likely.
_CATCH_UP = 0.1


class Engine(placement.Engine, Protocol):
    """What runs a layer's work in one event loop, and has its clock."""

    on_tick: list[Callable[[], object]]

    def receive(self, channel: str) -> Coroutine[Any, Any, Message]:
        """The next message of a normal channel."""

    def forget_claimed(self) -> None:
        """Drops what readers of normal channels claimed ahead."""

    async def flush_sends(self) -> None:
        """Returns when all that was sent is answered."""

    async def aclose(self) -> None:
        """Ends all work, and closes all connections."""


class LoopSubscriptions:
    """Keeps those names subscribed whose owner it is, as long as its engine runs.

    `make_placement` makes what subscribes them, for `is_ours` and `deliver`. The
    `publisher` is the layer's to use. `on_end` is called at the end.
    """

    def __init__(
        self,
        engine: Engine,
        publisher: Any,
        table: SubscriptionTable,
        delivery: Delivery,
        make_placement: Callable[..., Placement],
        command_timeout: float,
        on_end: Callable[[], object],
    ) -> None:
        self.engine = engine
        self.publisher = publisher
        self.loop = engine.loop
        self.shards = engine.shards
        self.is_open = True
        self.taken: set[bytes] = set()
        self._table = table
        self._delivery = delivery
        self._timeout = command_timeout
        self._on_end = on_end
        self.placement = make_placement(
            is_ours=functools.partial(table.is_owner, owner=self),
            deliver=self._deliver,
        )
        engine.on_tick.append(self._tick)

    def receive(self, channel: str) -> Coroutine[Any, Any, Message]:
        """The next message of a normal channel, which is not published."""
        return self.engine.receive(channel)

    def forget_claimed(self) -> None:
        """Drops what readers of normal channels claimed ahead."""
        self.engine.forget_claimed()

    async def flush_sends(self) -> None:
        """Returns when all that was sent is answered."""
        await self.engine.flush_sends()

    async def subscribe(self, name: bytes) -> None:
        """Returns when Redis has confirmed a name.

        Raises redis-py's `ConnectionError` while there is no connection, and what
        Redis answers if that doesn't pass within `command_timeout`.
        """
        try:
            async with timeout(self._timeout):
                subscriber = await self.placement.subscribe(name, self._timeout)
        except asyncio.TimeoutError as error:
            text = f"no answer to a subscription within {self._timeout:g} s"
            raise errors.ConnectionError(text) from error
        finally:
            self.forget(name)  # if nobody wants it any more
        self.placement.note_confirmed(subscriber)

    def settle(self, names: list[bytes]) -> None:
        """Subscribes names in the background, however long it takes."""
        for name in names:
            self.placement.seek(name)

    def forget(self, name: bytes) -> None:
        """Unsubscribes a name, unless it is wanted here."""
        if not self._table.is_owner(name, self):
            self.placement.leave(name)

    def catch_up(self) -> None:
        """Forgets the names that were taken, when what came to them was read."""
        self.loop.call_later(_CATCH_UP, self._forget_taken)

    async def aclose(self) -> None:
        """Ends it; a loop in which somebody waits takes the names over."""
        self.is_open = False
        self._on_end()
        try:
            await self.engine.aclose()
        finally:
            self.placement.end()

    def _deliver(self, name: bytes, payload: bytes) -> None:
        channels = self._table.channels(name, self)
        if channels:
            self._delivery.deliver(payload, name, None, self.loop, channels)
        elif self._table.is_taken(name, self):
            reason = "came to an event loop that stood still"
            self._delivery.counters.count(reason, name)
        # else it was on its way when the last channel left

    def _tick(self) -> None:
        self.placement.review(self._table.has_orphans)
        if self.taken:
            self.catch_up()
        self.placement.close_idle()

    def _forget_taken(self) -> None:
        while self.taken:  # others may add to it meanwhile
            self.forget(self.taken.pop())
