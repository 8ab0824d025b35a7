"""One Pub/Sub layer in one event loop: what it publishes, what it subscribes to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from redis import exceptions as errors

from .._settings import Settings
from ..client.timeouts import timeout
from ..commands.errors import is_connection_loss, may_pass
from ..commands.publishing import CLASSIC, Publisher
from ..exceptions import UnreadableMessage
from ..runtime.engine import LoopEngine
from ..wire.codec import Codec, copier
from .outage import OutageNotifier
from .registry import SubscriptionRegistry
from .subscriber import Subscriber, verbs_of

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.5
_IDLE = 10.0  # seconds that a connection without a subscription stays
# Seconds until a loop that stood still has read what came meanwhile, most likely.
_CATCH_UP = 0.1
_BATCH = 512

Place = tuple[int, Any]  # a shard's index and a node of it


class LoopSubscriptions(Publisher, LoopEngine):
    """Publishes, and keeps those names subscribed whose owner it is.

    `codec` is for payloads. On a Cluster names go to the nodes that own them, with
    sharded Pub/Sub if the settings say so and the Cluster knows it. `on_tick` is
    called about once a second, `on_end` at the end.
    """

    def __init__(
        self,
        *,
        topics: SubscriptionRegistry,
        codec: Codec,
        outage: OutageNotifier,
        on_tick: Callable[[], None],
        on_end: Callable[[], None],
        settings: Settings,
        **options: Any,
    ) -> None:
        super().__init__(settings, **options, offer=lambda inbox: None)
        self.is_open = True
        self.taken: set[bytes] = set()
        self._topics = topics
        self._codec = codec
        self._outage = outage
        self._on_tick = on_tick
        self._on_end = on_end
        self._timeout: float = settings.command_timeout
        self._subscribers: dict[Place, Subscriber] = {}
        self._places: dict[bytes, Subscriber] = {}
        self._evacuating: set[Subscriber] = set()
        self._seeking: dict[int, _Seeking] = {}  # by shard
        self._verbs = verbs_of(options["hosts"], settings.sharded_pubsub)
        self._proven: set[int] = set()  # hosts that took a publication of their verb

    # The names that it owns

    async def subscribe(self, name: bytes, anew: bool = False) -> None:
        """Returns when Redis has confirmed a name; `anew`: its node may have changed.

        Raises redis-py's `ConnectionError` while there is no connection, and what
        Redis answers if that doesn't pass within `command_timeout`.
        """
        try:
            async with timeout(self._timeout):
                subscriber = await self._subscribe(name, anew)
        except asyncio.TimeoutError as error:
            text = f"no answer to a subscription within {self._timeout:g} s"
            raise errors.ConnectionError(text) from error
        finally:
            if not self._topics.is_owner(name, self):
                self.forget(name)  # nobody wants it any more
        if subscriber.is_up:
            self._outage.back(subscriber)

    def settle(self, names: list[bytes]) -> None:
        """Subscribes names in the background, however long it takes."""
        for name in names:
            self._seek(name)

    def forget(self, name: bytes) -> None:
        """Unsubscribes a name, unless it is wanted here."""
        if not self._topics.is_owner(name, self):
            subscriber = self._places.pop(name, None)
            if subscriber is not None:
                self._leave(subscriber, name)

    def catch_up(self) -> None:
        """Forgets the names that were taken, when what came to them was read."""
        self.loop.call_later(_CATCH_UP, self._forget_taken)

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
            return is_connection_loss(error) and self._topics.is_owner(name, self)
        return place is not subscriber  # it went there meanwhile

    async def _place(self, name: bytes, anew: bool) -> Subscriber:
        former = self._places.get(name)
        if former is not None and not anew:
            return former
        index = self._operations.shard_of(name.decode())
        node = await self.shards[index].node_of(name, anew=anew)
        return self._put(name, (index, node))

    def _put(self, name: bytes, place: Place) -> Subscriber:
        subscriber = self._subscribers.get(place)
        if subscriber is None:
            subscriber = self._subscribers[place] = self._subscriber_at(*place)
        if not subscriber.is_up:
            self._outage.joined(subscriber)
        former = self._places.get(name)
        self._places[name] = subscriber
        if former is not None and former is not subscriber:
            self._leave(former, name)
        return subscriber

    def _subscriber_at(self, index: int, node: Any) -> Subscriber:
        return Subscriber(
            self.shards[index],
            node,
            self._verbs[index],
            deliver=self._deliver,
            stray=self._stray,
            down=self._down,
            up=self._outage.back,
        )

    def _forget_place(self, name: bytes, subscriber: Subscriber) -> None:
        """Looks for a name's place anew, unless it has another by now."""
        if self._places.get(name) is subscriber:
            del self._places[name]

    def _leave(self, subscriber: Subscriber, name: bytes) -> None:
        subscriber.unsubscribe(name)
        if not subscriber.names and subscriber not in self._evacuating:
            self._outage.needless(subscriber)

    # Names that nobody waits for

    def _seek(self, name: bytes) -> None:
        """Has a name placed, and its node asked for it, in the background."""
        index = self._operations.shard_of(name.decode())
        is_first = index not in self._seeking
        seeking = self._seeking.setdefault(index, _Seeking())
        seeking.add(name)
        if is_first:
            self._spawn(self._place_all(index, seeking))

    async def _place_all(self, index: int, seeking: _Seeking) -> None:
        """Places names in rounds, as long as some have no node, or stray again."""
        try:
            while names := seeking.take():
                await self.shards[index].look_up()
                await self._place_round(index, names)
                await seeking.pause()
        finally:
            del self._seeking[index]

    async def _place_round(self, index: int, names: list[bytes]) -> None:
        for number, name in enumerate(names, 1):
            place = self.shards[index].place_of(name)
            if not self._topics.is_owner(name, self):
                continue
            if place is None:
                self._seeking[index].add(name)
            else:
                self._put(name, place).want(name)
            if number % _BATCH == 0:
                await asyncio.sleep(0)  # others want to run, too

    # What subscribers tell

    def _deliver(self, name: bytes, payload: bytes) -> None:
        channels = self._topics.channels(name, self)
        if not channels:  # it was on its way when the last channel left, or:
            if self._topics.is_taken(name, self):
                self._counters.count("came to an event loop that stood still", name)
            return
        try:
            _, message, flat = self._codec.open(payload, name)
        except UnreadableMessage as error:
            self._counters.unreadable(name, error)
            return
        copy = None  # who alone gets it needs none
        if len(channels) > 1:
            copy = copier(self._codec, payload, name, message, flat)
        unknown = self._mailboxes.put(None, channels, message, copy, self.loop)
        if unknown:
            self._counters.count("for no channel of this process", name, unknown)

    def _stray(self, subscriber: Subscriber, name: bytes) -> None:
        self._forget_place(name, subscriber)
        self._seek(name)

    def _down(self, subscriber: Subscriber) -> None:
        if subscriber.was_up and self._is_needed(subscriber):
            self._outage.lost(subscriber)
        if subscriber.node is not None and subscriber not in self._evacuating:
            self._evacuating.add(subscriber)
            self._spawn(self._evacuate(subscriber))

    async def _evacuate(self, subscriber: Subscriber) -> None:
        """Moves names to the nodes that own them now; others wait for this one."""
        shard, heirs = subscriber.shard, set[Subscriber]()
        here = shard.index, subscriber.node
        try:
            await shard.look_up()
            for number, name in enumerate(list(subscriber.names), 1):
                place = shard.place_of(name)
                if name in subscriber.names and place not in (None, here):
                    heirs.add(heir := self._put(name, place))
                    heir.want(name)
                if number % _BATCH == 0:
                    await asyncio.sleep(0)  # others want to run, too
            await asyncio.gather(*(heir.settled() for heir in heirs))
        finally:
            self._evacuating.discard(subscriber)
        if not subscriber.names:
            self._outage.needless(subscriber)

    # Housekeeping

    def _tick(self) -> None:
        super()._tick()
        self._on_tick()
        self._outage.review(self._is_whole)
        if self.taken:
            self.catch_up()
        oldest = self.loop.time() - _IDLE
        for place, subscriber in list(self._subscribers.items()):
            if not subscriber.names and subscriber.idle_since < oldest:
                del self._subscribers[place]
                self._spawn(subscriber.aclose())

    def _forget_taken(self) -> None:
        while self.taken:  # others may add to it meanwhile
            self.forget(self.taken.pop())

    def _is_needed(self, subscriber: Subscriber) -> bool:
        """Whether names are to be heard there, which no other loop took over."""
        return any(self._topics.is_owner(name, self) for name in subscriber.names)

    def _is_whole(self) -> bool:
        """Whether all that is to be heard in this process is heard, as far as known."""
        needed = filter(self._is_needed, self._subscribers.values())
        return all(s.is_up for s in needed) and not self._topics.has_orphans()


class _Seeking:
    """The names of a shard that have no place, and those of the last round."""

    def __init__(self) -> None:
        self._names: set[bytes] = set()
        self._tried: set[bytes] = set()
        self._has_new = asyncio.Event()
        self._pause = _FIRST_PAUSE

    def add(self, name: bytes) -> None:
        """Adds a name for the next round, which is at once if this is new."""
        self._names.add(name)
        if name not in self._tried:
            self._has_new.set()

    def take(self) -> list[bytes]:
        """The names of the next round."""
        is_new = self._has_new.is_set()
        self._pause = _FIRST_PAUSE if is_new else min(2 * self._pause, _LONGEST_PAUSE)
        self._has_new.clear()
        self._tried, self._names = self._names, set()
        return list(self._tried)

    async def pause(self) -> None:
        """Waits a while, or for a name that is new."""
        with contextlib.suppress(asyncio.TimeoutError):
            async with timeout(self._pause):
                await self._has_new.wait()
