"""At which node each name of one event loop is subscribed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from redis import exceptions as errors

from ..client.host_verbs import HostVerbs
from ..client.shard import Shard
from ..commands.errors import is_connection_loss, may_pass
from .outage import OutageNotifier
from .seeking import Seeking
from .subscriber import Subscriber

_PAUSE = 0.05  # seconds until a name is tried again for which somebody waits
_IDLE = 10.0  # seconds that a connection without a subscription stays
_BATCH = 512

Place = tuple[int, Any]  # a shard's index and a node of it


class Engine(Protocol):
    """What runs a layer's work in one event loop."""

    loop: asyncio.AbstractEventLoop
    shards: list[Shard]

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs work that outlives its caller; the end of the loop ends it."""


class Placement:
    """Keeps names subscribed at the nodes that have them, wherever those go.

    `shard_of` maps a name to the index of a shard, whose commands are in `verbs`.
    `is_ours` says whether a name is still wanted here. `deliver` takes each message, by
    name and payload, and `back` each subscriber that is up (again).
    """

    def __init__(
        self,
        engine: Engine,
        shard_of: Callable[[str], int],
        verbs: list[HostVerbs],
        outage: OutageNotifier,
        back: Callable[[Subscriber], None],
        *,
        is_ours: Callable[[bytes], bool],
        deliver: Callable[[bytes, bytes], None],
    ) -> None:
        self.engine = engine
        self._shards = engine.shards
        self._shard_of = shard_of
        self._verbs = verbs
        self._outage = outage
        self._back = back
        self._is_ours = is_ours
        self._deliver = deliver
        self.subscribers: dict[Place, Subscriber] = {}
        self._places: dict[bytes, Subscriber] = {}
        self._evacuating: set[Subscriber] = set()
        self._seeking: dict[int, Seeking] = {}  # by shard

    async def subscribe(self, name: bytes, seconds: float) -> Subscriber:
        """Who has a name subscribed, when Redis has confirmed it.

        It is tried as long as that may help, and for about so many seconds. Raises
        redis-py's `ConnectionError` while there is no connection, and what Redis
        answers.
        """
        deadline, pause = self.engine.loop.time() + seconds, 0.0
        anew = False
        while True:
            subscriber = await self._place(name, anew)
            try:
                await subscriber.subscribe(name)
                return subscriber
            except errors.RedisError as error:
                again = self._is_worthwhile(name, subscriber, error)
                if name not in subscriber.names:
                    self._forget_place(name, subscriber)
                if not again or self.engine.loop.time() > deadline:
                    raise
            await asyncio.sleep(pause)
            anew, pause = True, _PAUSE

    def seek(self, name: bytes) -> None:
        """Has a name placed, and its node asked for it, in the background."""
        index = self._shard_of(name.decode())

        def ended(_: object) -> None:
            """Begins anew for who came last, or if it was cancelled, by whomever."""
            names = self._seeking.pop(index).names
            for one in () if self._shards[index].closed else names:
                self.seek(one)

        is_first = index not in self._seeking
        seeking = self._seeking.setdefault(index, Seeking())
        seeking.add(name)
        if is_first:
            placing = self.engine.spawn(self._place_all(index, seeking))
            placing.add_done_callback(ended)

    def leave(self, name: bytes) -> None:
        """Unsubscribes a name."""
        subscriber = self._places.pop(name, None)
        if subscriber is not None:
            self._unsubscribe(subscriber, name)

    def close_idle(self) -> None:
        """Closes the connections that had no subscription for a while."""
        oldest = self.engine.loop.time() - _IDLE
        for place, subscriber in list(self.subscribers.items()):
            if not subscriber.names and subscriber.idle_since < oldest:
                del self.subscribers[place]
                self.engine.spawn(subscriber.aclose())

    def note_confirmed(self, subscriber: Subscriber) -> None:
        """Notes that somebody was told of a subscription there."""
        if subscriber.is_up:
            self._back(subscriber)

    def review(self, has_orphans: Callable[[], bool]) -> None:
        """Ends an outage if all that this process is to hear is heard, as far as known.

        `has_orphans`: whether there are names that nobody listens to.
        """

        def is_whole() -> bool:
            needed = filter(self._is_needed, self.subscribers.values())
            return all(one.is_up for one in needed) and not has_orphans()

        self._outage.review(is_whole)

    def end(self) -> None:
        """Notes that another loop will listen; connections end with their shards."""
        for subscriber in self.subscribers.values():
            self._outage.replaced(subscriber)

    # Where names are subscribed

    def _is_worthwhile(
        self, name: bytes, subscriber: Subscriber, error: Exception
    ) -> bool:
        """Whether a name that failed there is to be tried again."""
        place = self._places.get(name)
        if may_pass(error) or isinstance(error, errors.AskError):
            return True
        if place is None:  # it strayed while this waited for the connection
            return is_connection_loss(error) and self._is_ours(name)
        return place is not subscriber  # it went there meanwhile

    async def _place(self, name: bytes, anew: bool) -> Subscriber:
        former = self._places.get(name)
        if former is not None and not anew:
            return former
        index = self._shard_of(name.decode())
        node = await self._shards[index].node_of(name, anew=anew)
        return self._put(name, (index, node))

    def _put(self, name: bytes, place: Place) -> Subscriber:
        subscriber = self.subscribers.get(place)
        if subscriber is None:
            subscriber = self.subscribers[place] = self._subscriber_at(*place)
        if not subscriber.is_up:
            self._outage.joined(subscriber)
        former = self._places.get(name)
        self._places[name] = subscriber
        if former is not None and former is not subscriber:
            self._unsubscribe(former, name)
        return subscriber

    def _subscriber_at(self, index: int, node: Any) -> Subscriber:
        return Subscriber(
            self._shards[index],
            node,
            self._verbs[index],
            deliver=self._deliver,
            stray=self._stray,
            down=self._down,
            up=self._back,
        )

    def _forget_place(self, name: bytes, subscriber: Subscriber) -> None:
        """Looks for a name's place anew, unless it has another by now."""
        if self._places.get(name) is subscriber:
            del self._places[name]

    def _unsubscribe(self, subscriber: Subscriber, name: bytes) -> None:
        subscriber.unsubscribe(name)
        if not subscriber.names and subscriber not in self._evacuating:
            self._outage.needless(subscriber)

    def _is_needed(self, subscriber: Subscriber) -> bool:
        """Whether names are to be heard there, which no other loop took over."""
        return any(map(self._is_ours, subscriber.names))

    # Names that nobody waits for

    async def _place_all(self, index: int, seeking: Seeking) -> None:
        """Places names in rounds, as long as some have no node, or stray again."""
        while names := seeking.take():
            await self._shards[index].look_up()
            await self._place_round(index, names)
            await seeking.pause()

    async def _place_round(self, index: int, names: list[bytes]) -> None:
        for number, name in enumerate(names, 1):
            place = self._shards[index].place_of(name)
            if not self._is_ours(name):
                continue
            if place is None:
                self._seeking[index].add(name)
            else:
                self._put(name, place).want(name)
            if number % _BATCH == 0:
                await asyncio.sleep(0)  # others want to run, too

    # What subscribers tell

    def _stray(self, subscriber: Subscriber, name: bytes) -> None:
        self._forget_place(name, subscriber)
        self.seek(name)

    def _down(self, subscriber: Subscriber) -> None:
        if subscriber.was_up and self._is_needed(subscriber):
            self._outage.lost(subscriber)
        if subscriber.node is not None and subscriber not in self._evacuating:
            self._evacuating.add(subscriber)
            self.engine.spawn(self._evacuate(subscriber))

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
