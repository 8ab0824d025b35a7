"""Groups with a history: joining from a position on, and reading what is kept."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection, Iterable
from time import monotonic
from typing import Any

from redis.exceptions import ConnectionError, RedisError

from ._group_calls import CoreGroupCalls, PubSubGroupCalls
from ._history_parts import HistoryParts
from .client.timeouts import timeout
from .commands.bulk import Outcome
from .commands.census import without
from .commands.errors import value_of
from .commands.history import Append, Found, HistoryCommands
from .exceptions import ForeignChannel
from .mailboxes.followers import Answer
from .runtime.base_engine import Engine
from .types import BEGINNING, Page, Recovery, SendResult
from .wire.codec import Message
from .wire.placed import with_position
from .wire.positions import Position, placed
from .wire.reserved import EXCLUDE, reserved, with_excluded

Place = Position | str | None
Begin = Callable[[], Awaitable[Any]]


class ReplayCalls(HistoryParts):
    """The methods of groups that `history` names; for others they raise `ValueError`.

    A `since` is a position of the group, or `BEGINNING`; a text that is neither is no
    error, but nothing can be recovered from there.
    """

    async def group_join(
        self, group: str, channel: str, since: str | None = None
    ) -> Recovery:
        """Adds a channel of this process to a group, after what came after `since`.

        It gets each message from there on once, in order, and where that can't be
        `{"type": "group.gap", "group": ..., "position": ...}` in its place. Raises
        `TypeError` for names and a `since` that is no str.
        """
        history = self._checked(group)
        place = history.place(group, since)
        answer = await self._follow(group, channel, place)
        return Recovery(
            placed(group, answer.position), answer.recovered, answer.replayed
        )

    async def group_history(
        self,
        group: str,
        since: str | None = None,
        *,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Page:
        """What is kept of a group's messages, of those after `since`; up to `limit`.

        The oldest come first, or with `reverse` the newest. The page's position is that
        of its last message if there are more, else the group's.
        """
        history = self._checked(group)
        _check_limit(limit)
        place = history.place(group, BEGINNING if since is None else since)
        offset = place[1] if isinstance(place, tuple) else 0
        found = await self._ask_history(history, group, history.since(group, offset))
        return _page(group, found, place, limit, reverse)

    async def group_position(self, group: str) -> str:
        """Where a group is now: a `since` for all that is sent from now on."""
        history = self._checked(group)
        request = history.since(group, None)
        found = await self._ask_history(history, group, request)
        return placed(group, found.position)

    async def group_forget(self, group: str) -> None:
        """Drops what is kept of a group; nothing can be recovered from before."""
        history = self._checked(group)
        await self._ask_history(history, group, history.forget(group))

    # Steps

    def _checked(self, group: str) -> HistoryCommands:
        self.require_valid_group_name(group)
        if self._history is None:
            raise ValueError("groups have no history without the option `history`")
        self._history.rule(group)
        return self._history

    async def _ask_history(
        self, history: HistoryCommands, group: str, request: Any
    ) -> Found:
        return history.found(group, await self._engine().run(request))

    async def _follow(self, group: str, channel: str, place: Place) -> Answer:
        raise NotImplementedError

    def _body_but_for(self, message: Message, excluded: Collection[str]) -> Any:
        """A codec's body of a message that isn't for some channels."""
        body = self._codec.body(message)
        if EXCLUDE in message:
            raise reserved(message)
        return self._codec.body(with_excluded(message, excluded)) if excluded else body

    async def _followed(
        self, engine: Engine, group: str, channel: str, place: Place, begin: Begin
    ) -> Answer:
        if self._replays is None:
            raise RuntimeError("a layer without histories has nobody who follows them")
        return await self._replays.join(engine, group, str(channel), place, begin)


class CoreReplay(ReplayCalls, CoreGroupCalls):
    """The same in the core layer."""

    async def _follow(self, group: str, channel: str, place: Place) -> Answer:
        self._non_local(channel)
        if channel not in self._mailboxes:
            text = f"{channel!r} can't join {group!r}: it is no channel of this process"
            raise ForeignChannel(text)
        engine = self._engine()
        begin = functools.partial(engine.run, self._operations.join(group, channel))
        with self._joining(group, channel):
            return await self._followed(engine, group, channel, place, begin)

    async def _append(
        self,
        engine: Engine,
        history: HistoryCommands,
        group: str,
        message: Message,
        excluded: list[str],
    ) -> SendResult:
        """Sends a message to a group with a history, by whose answer it has a place."""
        operations = self._operations
        body = self._body_but_for(message, excluded)
        append = history.append(group, body)
        request, began = operations.members(group), monotonic()
        reply, asked, answer = await engine.append_and_ask(append, request, began)
        position = history.appended(reply)
        next(self._messages.to_groups)
        if excluded and self._replays is not None and self._replays.follows(group):
            # Nobody tells this process, if its members are those that are excluded.
            for _, kept in history.appended_alone(group, body, reply).entries:
                self._replays.take(*kept, asyncio._get_running_loop())
        members = operations.note_members(asked or request, value_of(answer))
        members = without(members, frozenset(name.encode() for name in excluded))
        if not members:
            return SendResult(0, 0, 0)
        body = with_position(body, group, position)
        requests = operations.deliveries(members, body)
        replies = await engine.run_all(requests, began)
        return operations.delivered(group, len(members), replies)

    async def _append_many(self, messages: Iterable[Any]) -> list[Outcome]:
        """As `group_send_many`: what has a history one by one, all else together."""
        pairs = list(messages)
        kept = {at: pair for at, pair in enumerate(pairs) if self._is_kept(pair)}
        others = [pair for at, pair in enumerate(pairs) if at not in kept]
        rest = iter(await self._group_send_many(others))
        return [
            await self._outcome(*kept[at]) if at in kept else next(rest)
            for at in range(len(pairs))
        ]

    def _is_kept(self, pair: Any) -> bool:
        is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2
        is_named = is_pair and isinstance(pair[0], str)
        return is_named and self._history is not None and self._history.has(pair[0])

    async def _outcome(self, group: str, message: Message) -> Outcome:
        try:
            await self.group_send(group, message)
        except (TypeError, RedisError) as error:
            return error
        return None


class PubSubReplay(ReplayCalls, PubSubGroupCalls):
    """The same in the Pub/Sub layer."""

    async def _follow(self, group: str, channel: str, place: Place) -> Answer:
        engine = self._loops.engine().engine
        begin = functools.partial(self.group_add, group, channel)
        try:  # what others ask for, too, has no caller's deadline
            async with timeout(self.command_timeout):
                return await self._followed(engine, group, channel, place, begin)
        except asyncio.TimeoutError as error:
            text = f"group_join() took more than {self.command_timeout:g} s"
            raise ConnectionError(text) from error

    def _kept(
        self, group: str, message: Message, exclude: str | Iterable[str] = ()
    ) -> Append | None:
        """What appends a message to a group's history; None: it has none."""
        if (history := self._history) is None or not history.has(group):
            return None
        excluded = () if exclude == () else self._names(exclude)
        body = self._body_but_for(message, excluded)
        return history.append(group, body)


def _check_limit(limit: Any) -> None:
    is_number = isinstance(limit, int) and not isinstance(limit, bool) and limit > 0
    if limit is not None and not is_number:
        raise ValueError(f"limit must be None or a whole number above 0, not {limit!r}")


def _page(
    group: str, found: Found, place: Place, limit: int | None, reverse: bool
) -> Page:
    position, entries = found
    recovered = place == BEGINNING
    if isinstance(place, tuple):
        entries = [entry for entry in entries if entry[0][0] == place[0]]
        first = entries[0][0][1] if entries else position[1] + 1
        recovered = place[0] == position[0] and first == place[1] + 1
    if not recovered:
        entries = []
    if reverse:
        entries = entries[::-1]
    if limit is not None and limit < len(entries):
        entries = entries[:limit]
        position = entries[-1][0]
    messages = [copy() for _, (_, copy, _) in entries]
    return Page(messages, placed(group, position), recovered)


class SyncReplay:
    """The same for `layer.sync`."""

    _run: Callable[..., Any]

    def group_join(
        self, group: str, channel: str, since: str | None = None
    ) -> Recovery:
        """Adds a channel of this process to a group, after what came after `since`."""
        recovery: Recovery = self._run("group_join", group, channel, since)
        return recovery

    def group_history(
        self,
        group: str,
        since: str | None = None,
        *,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Page:
        """What is kept of a group's messages, of those after `since`; up to `limit`."""
        page: Page = self._run(
            "group_history", group, since, limit=limit, reverse=reverse
        )
        return page

    def group_position(self, group: str) -> str:
        """Where a group is now: a `since` for all that is sent from now on."""
        position: str = self._run("group_position", group)
        return position

    def group_forget(self, group: str) -> None:
        """Drops what is kept of a group; nothing can be recovered from before."""
        self._run("group_forget", group)
