"""One Pub/Sub layer in one event loop: what it publishes, what it subscribes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from redis import exceptions as errors

from ._codec import Codec, copier
from ._local import LocalLayer
from ._outage import Outage
from ._publisher import Publisher, verbs_of
from ._subscriber import CLASSIC, Subscriber
from ._topics import Topics
from .commands.errors import is_connection_loss, may_pass
from .exceptions import UnreadableMessage

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.5
_IDLE = 10.0  # seconds that a connection without a subscription stays
_BATCH = 512

Place = tuple[int, Any]  # a shard's index and a node of it


class LocalPubSub(Publisher, LocalLayer):
    """Publishes, and keeps those names subscribed whose home it is.

    `codec` is for payloads. On a Cluster names go to the nodes that own them, with
    sharded Pub/Sub if `sharded` and the Cluster knows it. `on_tick` is called about
    once a second, `on_end` at the end.
    """

    def __init__(
        self,
        *,
        topics: Topics,
        codec: Codec,
        outage: Outage,
        sharded: bool,
        on_tick: Callable[[], None],
        on_end: Callable[[], None],
        **options: Any,
    ) -> None:
        super().__init__(**options, hand_over=lambda inbox: None)
        self.is_open = True
        self._topics = topics
        self._codec = codec
        self._outage = outage
        self._on_tick = on_tick
        self._on_end = on_end
        self._timeout: float = options["command_timeout"]
        self._subscribers: dict[Place, Subscriber] = {}
        self._places: dict[bytes, Subscriber] = {}
        self._evacuating: set[Subscriber] = set()
        self._verbs = verbs_of(options["hosts"], sharded)
        self._proven: set[int] = set()  # hosts that took a publication of their verb

    # The names whose home this is

    async def subscribe(self, name: bytes, anew: bool = False) -> None:
        """Returns when Redis has confirmed a name; `anew`: its node may have changed.

        Raises redis-py's `ConnectionError` while there is no connection, and what
        Redis answers if that doesn't pass within `command_timeout`.
        """
        try:
            subscriber = await self._subscribe(name, anew)
        finally:
            if not self._topics.is_home(name, self):
                self.forget(name)  # nobody wants it any more
        if subscriber.is_up:
            self._outage.back(subscriber)

    def settle(self, names: list[bytes]) -> None:
        """Subscribes names in the background, however long it takes."""
        self._spawn(self._settle_all(names))

    def forget(self, name: bytes) -> None:
        """Unsubscribes a name, unless it is wanted here."""
        if not self._topics.is_home(name, self):
            subscriber = self._places.pop(name, None)
            if subscriber is not None:
                self._leave(subscriber, name)

    async def aclose(self) -> None:
        """Ends it; a loop in which somebody waits takes the names over."""
        self.is_open = False
        self._on_end()
        try:
            await super().aclose()
        finally:
            for subscriber in self._subscribers.values():
                self._outage.replaced(subscriber)

    # Publishing without an answer

    def _post(self, name: str, payload: bytes) -> Coroutine[Any, Any, None]:
        index, command = self.publication(name, payload)
        if self._verbs[index] is CLASSIC or index in self._proven:
            posting: Coroutine[Any, Any, None] = self.outbox.publish((index, command))
            return posting
        return self._publish_first(index, name, payload)

    async def _publish_first(self, index: int, name: str, payload: bytes) -> None:
        """Awaits the answer: the Cluster may be too old for the verb."""
        await self._publish_sharded(index, name, payload)
        self._proven.add(index)

    # Where names are subscribed

    async def _subscribe(self, name: bytes, anew: bool) -> Subscriber:
        """Tries until Redis has confirmed a name, as long as that may help."""
        deadline, pause = self.loop.time() + self._timeout, 0.0
        while True:
            subscriber = await self._place(name, anew)
            try:
                await subscriber.subscribe(name)
                return subscriber
            except errors.RedisError as error:
                again = self._is_worthwhile(name, subscriber, error)
                if name not in subscriber.names:
                    self._forget_place(name, subscriber)
                if not again or self.loop.time() > deadline:
                    raise
            await asyncio.sleep(pause)
            anew, pause = True, _FIRST_PAUSE

    def _is_worthwhile(
        self, name: bytes, subscriber: Subscriber, error: Exception
    ) -> bool:
        """Whether a name that failed there is to be tried again."""
        place = self._places.get(name)
        if may_pass(error) or isinstance(error, errors.AskError):
            return True
        if place is None:  # it strayed while this waited for the connection
            return is_connection_loss(error) and self._topics.is_home(name, self)
        return place is not subscriber  # it went there meanwhile

    async def _place(self, name: bytes, anew: bool) -> Subscriber:
        former = self._places.get(name)
        if former is not None and not anew:
            return former
        index = self._operations.shard_of(name.decode())
        node = await self.shards[index].node_of(name, anew=anew)
        subscriber = self._subscribers.get((index, node))
        if subscriber is None:
            subscriber = self._subscribers[index, node] = Subscriber(
                self.shards[index],
                node,
                self._verbs[index],
                deliver=self._deliver,
                stray=self._stray,
                down=self._down,
                up=self._outage.back,
            )
            self._outage.joined(subscriber)
        former = self._places.get(name)
        self._places[name] = subscriber
        if former is not None and former is not subscriber:
            self._leave(former, name)
        return subscriber

    def _forget_place(self, name: bytes, subscriber: Subscriber) -> None:
        """Looks for a name's place anew, unless it has another by now."""
        if self._places.get(name) is subscriber:
            del self._places[name]

    def _leave(self, subscriber: Subscriber, name: bytes) -> None:
        subscriber.unsubscribe(name)
        if not subscriber.names and subscriber not in self._evacuating:
            self._outage.needless(subscriber)

    async def _settle_all(self, names: list[bytes], anew: bool = False) -> None:
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            await asyncio.gather(*(self._settle(name, anew) for name in batch))

    async def _settle(self, name: bytes, anew: bool) -> None:
        pause = _FIRST_PAUSE
        while self._topics.is_home(name, self):
            try:
                await self.subscribe(name, anew)
                return
            except errors.RedisError:
                await asyncio.sleep(pause)
                anew, pause = True, min(2 * pause, _LONGEST_PAUSE)

    # What subscribers tell

    def _deliver(self, name: bytes, payload: bytes) -> None:
        channels = self._topics.channels(name, self)
        if not channels:
            return  # on its way when the last channel left
        try:
            _, message, flat = self._codec.open(payload, name)
        except UnreadableMessage as error:
            self._counters.count("unreadable", error)
            return
        copy = None  # who alone gets it needs none
        if len(channels) > 1:
            copy = copier(self._codec, payload, name, message, flat)
        unknown = self._mailboxes.put(None, channels, message, copy, self.loop)
        if unknown:
            self._counters.count("for no channel of this process", name, unknown)

    def _stray(self, subscriber: Subscriber, name: bytes) -> None:
        self._forget_place(name, subscriber)
        self._spawn(self._settle_all([name], anew=True))

    def _down(self, subscriber: Subscriber) -> None:
        if subscriber.was_up and subscriber.names:
            self._outage.lost(subscriber)
        if subscriber.node is not None and subscriber not in self._evacuating:
            self._evacuating.add(subscriber)
            self._spawn(self._evacuate(subscriber))

    async def _evacuate(self, subscriber: Subscriber) -> None:
        """Moves names to the nodes that own them now; others wait for this one."""
        node_of, anew, moved = subscriber.shard.node_of, True, []
        try:
            for name in list(subscriber.names):
                if await node_of(name, anew=anew) != subscriber.node:
                    moved.append(name)
                anew = False
            await self._settle_all(moved, anew=True)
        finally:
            self._evacuating.discard(subscriber)
        if not subscriber.names:
            self._outage.needless(subscriber)

    # Housekeeping

    def _tick(self) -> None:
        super()._tick()
        self._on_tick()
        oldest = self.loop.time() - _IDLE
        for place, subscriber in list(self._subscribers.items()):
            if not subscriber.names and subscriber.idle_since < oldest:
                del self._subscribers[place]
                self._spawn(subscriber.aclose())
