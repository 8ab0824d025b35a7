"""What this process wants to hear: names at Redis, and who gets their messages."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Protocol

from redis import exceptions as errors

from ..commands.errors import is_connection_loss
from ..mailboxes.waiters import TaskWaiter

_BATCH = 512  # channels that are subscribed again together


class Owner(Protocol):
    """Where names are subscribed: one layer in one event loop."""

    loop: asyncio.AbstractEventLoop
    is_open: bool
    # Names that it need not listen to any more; while its loop stands still, told so.
    taken: set[bytes]

    async def subscribe(self, name: bytes) -> None:
        """Returns when Redis has confirmed a name."""

    def settle(self, names: list[bytes]) -> None:
        """Subscribes names in the background, however long it takes."""

    def forget(self, name: bytes) -> None:
        """Unsubscribes a name, unless it is wanted here."""

    def catch_up(self) -> None:
        """Forgets the names that were taken, when what came to them was read."""


class Subscription:
    """The channels that get a name's messages, and where the name is subscribed.

    A member's value: its joins that still wait for Redis; None when one has its answer.
    """

    __slots__ = ("channels", "members", "owner")

    def __init__(self) -> None:
        self.members: dict[str, set[object] | None] = {}
        self.channels: tuple[str, ...] | None = None  # the members, made on demand
        self.owner: Owner | None = None


class SubscriptionRegistry:
    """One subscription per name and process, for as long as a channel needs it.

    A name has one owner at a time: what other loops hear of it is ignored. When the
    owner's loop stops or ends, a loop in which somebody waits becomes the owner.
    `here` is the owner of the running loop, `timeout` (seconds) bounds the wait for
    another loop, `on_leave` is told each name and channel whose ways part. All
    methods may be called from any thread.
    """

    def __init__(
        self,
        here: Callable[[], Owner],
        timeout: float,
        on_leave: Callable[[bytes, str], None],
    ) -> None:
        self._here = here
        self._timeout = timeout
        self._on_leave = on_leave
        self._lock = threading.RLock()
        self._topics: dict[bytes, Subscription] = {}
        self._names: dict[Owner, set[bytes]] = {}  # by owner
        self._joined: dict[str, set[bytes]] = {}  # by channel
        self._own: dict[str, Subscription] = {}  # by channel: the one of its own name

    def __len__(self) -> int:
        return len(self._topics)

    # What owners ask

    def is_owner(self, name: bytes, owner: Owner) -> bool:
        """Whether a name is wanted, and there."""
        topic = self._topics.get(name)
        return topic is not None and topic.owner is owner

    def is_taken(self, name: bytes, owner: Owner) -> bool:
        """Whether another loop took a name over while this one stood still."""
        return name in owner.taken and name in self._topics

    def channels(self, name: bytes, owner: Owner) -> tuple[str, ...]:
        """The channels that get what `owner` hears of a name."""
        topic = self._topics.get(name)
        if topic is None or topic.owner is not owner:
            return ()
        channels = topic.channels
        if channels is None:
            with self._lock:
                channels = topic.channels = tuple(topic.members)
        return channels

    # What layers ask

    def loop_of(self, channel: str) -> asyncio.AbstractEventLoop | None:
        """The loop that listens to a channel's own name, while one does."""
        # For each message: what `_is_running` would say, without a call.
        topic = self._own.get(channel)
        if topic is None or (owner := topic.owner) is None or not owner.is_open:
            return None
        return owner.loop if owner.loop.is_running() else None

    def note_wait(self, waiter: TaskWaiter) -> None:
        """Somebody waits in a loop that isn't the one which listens.

        Its clock is to see when the other one stands still.
        """
        try:
            self._here()
        except BaseException:
            waiter.leave()
            raise

    async def listen(self, channel: str) -> None:
        """Listens to a channel's own name here, and to all that nobody listens to.

        While Redis can't be reached it goes on trying and returns.
        """
        name = channel.encode()
        self.claim()
        try:
            await self._join(name, channel, name, keep=True)
        except errors.RedisError as error:
            if not is_connection_loss(error):
                raise
            self.claim([name])

    async def listen_all(self) -> None:
        """As `listen`, for each channel that has messages of its own name."""
        channels = list(self._own)
        for start in range(0, len(channels), _BATCH):
            batch = channels[start : start + _BATCH]
            await asyncio.gather(*map(self.listen, batch))

    async def join(self, name: bytes, channel: str, beside: bytes) -> None:
        """Gives a channel the messages of a name; returns when Redis has confirmed.

        A name that isn't subscribed yet gets the owner of the name `beside`, if that
        has one. Raises what Redis or redis-py does; nothing has changed then.
        """
        await self._join(name, channel, beside, keep=False)

    def leave(self, name: bytes, channel: str) -> None:
        """Gives a channel no more messages of a name."""
        with self._lock:
            owner = self._take_out(name, channel)
        _tell_forget(owner, name)

    def end(self, channel: str) -> None:
        """Gives a channel no more messages at all."""
        for name in list(self._joined.get(channel, ())):
            self.leave(name, channel)

    def names(self) -> list[bytes]:
        """All names that are wanted."""
        with self._lock:
            return list(self._topics)

    def drop(self, name: bytes) -> None:
        """Gives nobody a name's messages any more."""
        topic = self._topics.get(name)
        for channel in list(topic.members) if topic else ():
            self.leave(name, channel)

    def has_orphans(self) -> bool:
        """Whether there are names that nobody listens to."""
        with self._lock:
            return not all(map(_is_running, self._names))

    def claim(self, names: list[bytes] | None = None) -> None:
        """Makes this loop the owner of names, or of all that nobody listens to."""
        owner = self._here()
        left: list[tuple[Owner | None, bytes]] = []
        with self._lock:
            for name in self._orphans() if names is None else names:
                if (topic := self._topics.get(name)) is not None:
                    left.append((topic.owner, name))
                    self._move(name, topic, owner)
        if left:
            owner.settle([name for _, name in left])
        for former, name in left:
            if former is not owner:
                _tell_forget(former, name)

    # Steps

    async def _join(self, name: bytes, channel: str, beside: bytes, keep: bool) -> None:
        join = object()
        owner = self._enter(name, channel, beside, join)
        stays = False
        try:
            await self._confirm(owner, name)
            stays = True
        except errors.RedisError as error:
            stays = keep and is_connection_loss(error)
            raise
        finally:
            self._settle(name, channel, join, stays)

    def _settle(self, name: bytes, channel: str, join: object, stays: bool) -> None:
        """Undoes a join that failed, unless another one holds."""
        owner = None
        with self._lock:
            topic = self._topics.get(name)
            joins = topic.members.get(channel) if topic is not None else None
            if topic is None or joins is None or join not in joins:
                return  # a member already, or no more
            joins.remove(join)
            if stays:
                topic.members[channel] = None
            elif not joins:
                owner = self._take_out(name, channel)
        _tell_forget(owner, name)

    def _take_out(self, name: bytes, channel: str) -> Owner | None:
        """Ends a membership; the owner of a name that nobody wants any more."""
        topic = self._topics.get(name)
        if topic is None or channel not in topic.members:
            return None
        del topic.members[channel]
        topic.channels = None
        self._joined[channel].discard(name)
        if not self._joined[channel]:
            del self._joined[channel]
        self._on_leave(name, channel)
        if topic.members:
            return None
        del self._topics[name]
        if self._own.get(channel) is topic:
            del self._own[channel]
        owner = topic.owner
        self._move(name, topic, None)
        return owner

    def _orphans(self) -> list[bytes]:
        """The names that nobody listens to."""
        owners = [owner for owner in self._names if not _is_running(owner)]
        return [name for owner in owners for name in self._names[owner]]

    def _move(self, name: bytes, topic: Subscription, owner: Owner | None) -> None:
        """Gives a name another owner; None: it needs none any more."""
        if topic.owner is not None:
            names = self._names[topic.owner]
            names.discard(name)
            if not names:
                del self._names[topic.owner]
        if owner is not None:
            self._names.setdefault(owner, set()).add(name)
        topic.owner = owner

    def _enter(self, name: bytes, channel: str, beside: bytes, join: object) -> Owner:
        here = self._here()
        with self._lock:
            topic = self._topics.get(name)
            if topic is None:
                topic = self._topics[name] = Subscription()
            if channel not in topic.members:
                topic.members[channel] = set()
                topic.channels = None
                self._joined.setdefault(channel, set()).add(name)
                if channel.encode() == name:
                    self._own[channel] = topic
            joins = topic.members[channel]
            if joins is not None:
                joins.add(join)
            former = topic.owner
            owner = self._choose(former, beside) or here
            if owner is not former:
                self._move(name, topic, owner)
        if former is not owner:
            _tell_forget(former, name)
        return owner

    def _choose(self, former: Owner | None, beside: bytes) -> Owner | None:
        if _is_running(former):
            return former
        neighbour = self._topics.get(beside)
        owner = neighbour.owner if neighbour is not None else None
        return owner if _is_running(owner) else None

    async def _confirm(self, owner: Owner, name: bytes) -> None:
        if owner.loop is asyncio.get_running_loop():
            await owner.subscribe(name)
            return
        work = owner.subscribe(name)
        try:
            there = asyncio.run_coroutine_threadsafe(work, owner.loop)
        except RuntimeError as error:
            work.close()
            raise errors.ConnectionError(f"the loop of {name!r} was closed") from error
        answer: asyncio.Future[Any] = asyncio.wrap_future(there)
        try:
            await asyncio.wait([answer], timeout=self._timeout)
        finally:
            answer.cancel()
        if answer.cancelled():
            raise errors.ConnectionError(f"the loop of {name!r} does not answer")
        await answer


def _is_running(owner: Owner | None) -> bool:
    return owner is not None and owner.is_open and owner.loop.is_running()


def _tell_forget(owner: Owner | None, name: bytes) -> None:
    if owner is None or not owner.is_open:
        return
    if owner.loop is asyncio._get_running_loop():
        owner.forget(name)
        return
    call: tuple[Any, ...] | None = (owner.forget, name)
    if not owner.loop.is_running():  # calls would pile up in it
        call = None if owner.taken else (owner.catch_up,)
        owner.taken.add(name)
    if call is not None:
        with contextlib.suppress(RuntimeError):  # closed: it has forgotten
            owner.loop.call_soon_threadsafe(*call)
