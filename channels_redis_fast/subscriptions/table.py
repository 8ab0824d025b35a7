"""Which channels get the messages of which names, and who listens to each; no I/O."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable

from .owners import Owner, is_running


class Subscription:
    """The channels that get a name's messages, and where the name is subscribed.

    A member's value: its joins that still wait for Redis; None when one has its answer.
    """

    __slots__ = ("channels", "members", "owner")

    def __init__(self) -> None:
        self.members: dict[str, set[object] | None] = {}
        self.channels: tuple[str, ...] | None = None  # the members, made on demand
        self.owner: Owner | None = None


class SubscriptionTable:
    """One subscription per name and process, for as long as a channel needs it.

    A name has one owner at a time: what other loops hear of it is ignored. `on_leave`
    is told each name and channel whose ways part. All methods may be called from any
    thread.
    """

    def __init__(self, on_leave: Callable[[bytes, str], None]) -> None:
        self._on_leave = on_leave
        self._lock = threading.RLock()
        self._subscriptions: dict[bytes, Subscription] = {}
        self._names: dict[Owner, set[bytes]] = {}  # by owner
        self._joined: dict[str, set[bytes]] = {}  # by channel
        self._own: dict[str, Subscription] = {}  # by channel: the one of its own name
        self.memberships = 0  # of channels, in all names but their own

    def __len__(self) -> int:
        return len(self._subscriptions)

    # What there is

    def names(self) -> list[bytes]:
        """All names that are wanted."""
        with self._lock:
            return list(self._subscriptions)

    def names_of(self, channel: str) -> list[bytes]:
        """The names whose messages a channel gets."""
        return list(self._joined.get(channel, ()))

    def members(self, name: bytes) -> list[str]:
        """The channels that joined a name."""
        subscription = self._subscriptions.get(name)
        return list(subscription.members) if subscription else []

    def channels(self, name: bytes, owner: Owner) -> tuple[str, ...]:
        """The channels that get what `owner` hears of a name."""
        subscription = self._subscriptions.get(name)
        if subscription is None or subscription.owner is not owner:
            return ()
        channels = subscription.channels
        if channels is None:
            with self._lock:
                channels = subscription.channels = tuple(subscription.members)
        return channels

    def is_owner(self, name: bytes, owner: Owner) -> bool:
        """Whether a name is wanted, and there."""
        subscription = self._subscriptions.get(name)
        return subscription is not None and subscription.owner is owner

    def is_taken(self, name: bytes, owner: Owner) -> bool:
        """Whether another loop took a name over while this one stood still."""
        return name in owner.taken and name in self._subscriptions

    def loop_of(self, channel: str) -> asyncio.AbstractEventLoop | None:
        """The loop that listens to a channel's own name, while one does."""
        # For each message: what `is_running` would say, without a call.
        own = self._own.get(channel)
        if own is None or (owner := own.owner) is None or not owner.is_open:
            return None
        return owner.loop if owner.loop.is_running() else None

    def listening(self) -> list[str]:
        """The channels that get messages of their own names."""
        return list(self._own)

    def has_orphans(self) -> bool:
        """Whether there are names that nobody listens to."""
        with self._lock:
            return not all(map(is_running, self._names))

    # Joining and leaving

    def join(
        self, name: bytes, channel: str, join: object, beside: bytes, here: Owner
    ) -> tuple[Owner | None, Owner]:
        """A channel's `join` begins; the owner before, and the one from now on.

        A name that nobody listens to gets the owner of the name `beside`, if that has
        one, or else `here`.
        """
        with self._lock:
            subscription = self._subscriptions.get(name)
            if subscription is None:
                subscription = self._subscriptions[name] = Subscription()
            if channel not in subscription.members:
                self._add(name, channel, subscription)
            joins = subscription.members[channel]
            if joins is not None:
                joins.add(join)
            former = subscription.owner
            owner = self._choose(former, beside, here)
            if owner is not former:
                self._move(name, subscription, owner)
        return former, owner

    def settle(
        self, name: bytes, channel: str, join: object, stays: bool
    ) -> Owner | None:
        """A join ends; it is undone unless it `stays`, or another one holds.

        Returns, as `leave`, who is to forget the name.
        """
        with self._lock:
            subscription = self._subscriptions.get(name)
            joins = subscription.members.get(channel) if subscription else None
            if subscription is None or joins is None or join not in joins:
                return None  # a member already, or no more
            joins.remove(join)
            if stays:
                subscription.members[channel] = None
            elif not joins:
                return self.leave(name, channel)
            return None

    def leave(self, name: bytes, channel: str) -> Owner | None:
        """Ends a membership; the owner of a name that nobody wants any more."""
        with self._lock:
            subscription = self._subscriptions.get(name)
            if subscription is None or channel not in subscription.members:
                return None
            self._remove(name, channel, subscription)
            if subscription.members:
                return None
            del self._subscriptions[name]
            if self._own.get(channel) is subscription:
                del self._own[channel]
            owner = subscription.owner
            self._move(name, subscription, None)
            return owner

    def claim(
        self, owner: Owner, names: Iterable[bytes] | None = None
    ) -> list[tuple[Owner | None, bytes]]:
        """Gives names an owner, or all that nobody listens to; with those before."""
        claimed: list[tuple[Owner | None, bytes]] = []
        with self._lock:
            for name in self._orphans() if names is None else names:
                subscription = self._subscriptions.get(name)
                if subscription is not None:
                    claimed.append((subscription.owner, name))
                    self._move(name, subscription, owner)
        return claimed

    # Steps

    def _add(self, name: bytes, channel: str, subscription: Subscription) -> None:
        subscription.members[channel] = set()
        subscription.channels = None
        self._joined.setdefault(channel, set()).add(name)
        if channel.encode() == name:
            self._own[channel] = subscription
        else:
            self.memberships += 1

    def _remove(self, name: bytes, channel: str, subscription: Subscription) -> None:
        del subscription.members[channel]
        self.memberships -= self._own.get(channel) is not subscription
        subscription.channels = None
        self._joined[channel].discard(name)
        if not self._joined[channel]:
            del self._joined[channel]
        self._on_leave(name, channel)

    def _choose(self, former: Owner | None, beside: bytes, here: Owner) -> Owner:
        if is_running(former):
            return former
        neighbour = self._subscriptions.get(beside)
        owner = None if neighbour is None else neighbour.owner
        return owner if is_running(owner) else here

    def _orphans(self) -> list[bytes]:
        owners = [owner for owner in self._names if not is_running(owner)]
        return [name for owner in owners for name in self._names[owner]]

    def _move(
        self, name: bytes, subscription: Subscription, owner: Owner | None
    ) -> None:
        """Gives a name another owner; None: it needs none any more."""
        if subscription.owner is not None:
            names = self._names[subscription.owner]
            names.discard(name)
            if not names:
                del self._names[subscription.owner]
        if owner is not None:
            self._names.setdefault(owner, set()).add(name)
        subscription.owner = owner
