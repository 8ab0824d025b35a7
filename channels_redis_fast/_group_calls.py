"""What both layers do with groups beyond the channel-layer specification."""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from time import monotonic
from typing import Any

from ._base import BaseRedisLayer
from ._core_parts import CoreParts
from ._listener import Listener
from ._pubsub_names import PubSubNames
from .commands.clearing import clear, members_of, notices
from .commands.errors import value_of
from .exceptions import ForeignChannel, InvalidName
from .wire.reserved import CLEAR, EXCLUDE


class NotGiven:
    """Stands for an argument that wasn't given."""

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN = NotGiven()
Since = str | NotGiven | None


class GroupCalls(BaseRedisLayer):
    """What is alike in both layers."""

    def listen(self, *groups: str, since: Since = NOT_GIVEN) -> Listener:
        """The messages of groups, on a channel of its own, as long as one is in it:

            async with layer.listen("news", "room-1") as messages:
                async for message in messages: ...

        With `since`, also None, it joins the group as `group_join` does, whose result
        is in `messages.recovery`; that takes one group. Raises `TypeError` for a bad
        name, `ValueError` for none or one twice.
        """
        if not groups:
            raise ValueError("listen() needs a group to listen to")
        for group in groups:
            self.require_valid_group_name(group)
            if groups.count(group) > 1:
                raise ValueError(f"listen() was given group {group!r} twice")
        if isinstance(since, NotGiven):
            return Listener(self, groups, self.group_add)
        if len(groups) > 1:
            raise ValueError(f"listen() takes one group with since, not {groups!r}")
        return Listener(self, groups, functools.partial(self.group_join, since=since))

    def _names(self, exclude: Any) -> list[str]:
        """Checks whom a message is not for; raises `TypeError` for no channel names."""
        if isinstance(exclude, (bytes, bytearray)) or not isinstance(exclude, Iterable):
            text = "exclude must be a channel name or several"
            raise InvalidName(f"{text}, not {reprlib.repr(exclude)}")
        names = [exclude] if isinstance(exclude, str) else list(exclude)
        for name in names:
            self._check_name(name)
        return names

    def _check_name(self, channel: Any) -> object:
        """Raises `TypeError` for what is no channel name."""
        return self._non_local(channel)


class CoreGroupCalls(GroupCalls, CoreParts):
    """As the core layer does them."""

    async def group_discard_all(self, channel: str) -> int:
        """Takes a channel of this process out of all its groups; of how many.

        Of those that it joined by this process. Raises `ForeignChannel`, which is a
        `TypeError`, for another process's channel or a normal one.
        """
        if not self._non_local(channel).endswith(f"{self.client_prefix}!"):
            raise ForeignChannel(f"{channel!r} is no channel of this process")
        memberships, operations = self._memberships, self._operations
        groups = list(memberships.groups_of.get(channel, ()))
        if not groups:
            return 0
        engine = self._engine()
        with ExitStack() as stack:
            for group in groups:
                stack.enter_context(memberships.leaving(group, channel))
            requests = [operations.leave(group, channel) for group in groups]
            return sum(map(value_of, await engine.run_all(requests)))

    async def group_clear(self, group: str) -> None:
        """Takes all members out of a group, whichever process's they are.

        Who joins at the same time may be in it or not. Their processes are told not to
        put them back when Redis loses its data: see `docs/groups.md`.
        """
        self.require_valid_group_name(group)
        engine, began = self._engine(), monotonic()
        operations = self._operations
        # First, as a script whose connection breaks runs again, and then finds nobody.
        members = set(await engine.run(members_of(operations, group), began))
        members.update(await engine.run(clear(operations, group), began))
        self._memberships.clearing.note(group)
        told = notices(operations, group, list(members))
        for reply in await engine.run_all(told, began):
            value_of(reply)

    def _encoded(self, exclude: Any) -> frozenset[bytes]:
        """Whom a message is not for, as Redis has the members of a group."""
        return frozenset(name.encode() for name in self._names(exclude))


class PubSubGroupCalls(GroupCalls, PubSubNames):
    """As the Pub/Sub layer does them."""

    async def group_discard_all(self, channel: str) -> int:
        """Takes a channel of this process out of all its groups; of how many.

        Raises `ForeignChannel`, which is a `TypeError`, for a channel that this
        process doesn't hold.
        """
        self._is_published(channel)
        if channel not in self._mailboxes:
            raise ForeignChannel(f"{channel!r} is no channel of this process")
        begin = self._groups_begin.encode()
        names = [n for n in self._table.names_of(channel) if n.startswith(begin)]
        for name in names:
            self._subscriptions.leave(name, channel)
        return len(names)

    async def group_clear(self, group: str) -> None:
        """Takes all members out of a group, in this process and all that hear of it.

        A process hears of it as of a message to the group, in its order among those:
        not while it is cut off from Redis. See `docs/groups.md`. Raises what `send`
        does.
        """
        self.require_valid_group_name(group)
        name = self._group_name(group)
        body = self._codec.body({EXCLUDE: [], CLEAR: self._origin})
        payload = self._codec.seal(body, None, name.encode())
        await self._publisher().publish(name, payload)
        self._subscriptions.drop(name.encode())

    def _check_name(self, channel: Any) -> object:
        return self._is_published(channel)


class SyncGroupCalls:
    """The same for callers without an event loop."""

    _run: Callable[..., Any]

    def group_discard_all(self, channel: str) -> int:
        """Takes a channel of this process out of all its groups; of how many."""
        left: int = self._run("group_discard_all", channel)
        return left

    def group_clear(self, group: str) -> None:
        """Takes all members out of a group, whichever process's they are."""
        self._run("group_clear", group)
