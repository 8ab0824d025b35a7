"""What channels that joined a group with `group_join` still have to get."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from operator import attrgetter
from time import monotonic
from typing import Any

from ..client.connection import consume
from ..commands.history import HistoryCommands
from ..mailboxes.followers import Answer, Followers, Joining
from ..mailboxes.registry import LocalChannels
from ..types import POSITION
from ..wire.codec import Message
from ..wire.positions import Position
from .base_engine import Engine
from .blocking_engine import BlockingEngine, run_without_loop
from .engine import LoopEngine
from .questions import Questions

# What comes too early waits so long (seconds) for what is missing, which most likely is
# on its way, before Redis is asked for it.
_PATIENCE = 0.1
# How often (seconds) who fell behind is looked at: whether it reads again.
_LOOK_EVERY = 0.05
# A group with messages in the last minute is asked for its position so often (seconds):
# the last message may be missing, and no other one tells. So many groups at a time.
_ACTIVE = 60.0
_ASK_EVERY = 10.0
_PORTION = 500
# How long (seconds) the end of an outage waits for what was missed.
_LONGEST = 5.0

_NOBODY: frozenset[str] = frozenset()


class Replays:
    """The groups that channels of this process follow, each from its position on.

    `existing` gives the running loop's engine, if there is one, and `blocking` one for
    callers without. All methods may be called from any thread.
    """

    def __init__(
        self,
        commands: HistoryCommands,
        mailboxes: LocalChannels,
        existing: Callable[[], LoopEngine | None],
        blocking: Callable[[], BlockingEngine | None],
    ) -> None:
        self._commands = commands
        self._mailboxes = mailboxes
        self._existing = existing
        self._blocking = blocking
        self._lock = threading.RLock()
        self._questions = Questions(commands, self._lock, self._note_rest)
        self._groups: dict[str, Followers] = {}
        self._joined: dict[str, set[str]] = {}  # groups, by channel
        self._rest: set[Followers] = set()  # who may lack something
        self._review_at = 0.0
        self._looks: set[asyncio.AbstractEventLoop] = set()  # in which a look is due

    # What came

    def take(
        self,
        message: Message,
        copy: Callable[[], Message],
        excluded: frozenset[str],
        here: asyncio.AbstractEventLoop | None,
    ) -> set[str] | frozenset[str]:
        """Takes a message that has a position; the channels that follow its group."""
        group, _, text = message[POSITION].rpartition("@")
        if (followers := self._groups.get(group)) is None:
            return _NOBODY
        position = int(text[:13]), int(text[14:])  # as `open` left it
        with self._lock:
            is_settled = followers.take(position, (message, copy, excluded), here)
        if not is_settled:
            self._note_rest(followers)
        return followers.names

    def follows(self, group: str) -> bool:
        """Whether a channel of this process follows a group."""
        return group in self._groups

    def note_loss(self) -> None:
        """Messages of any group may be lost: Redis is asked, by the clock."""
        with self._lock:
            for followers in self._groups.values():
                followers.is_unsure = True
            self._rest.update(self._groups.values())

    # Who follows

    async def join(
        self,
        engine: Any,
        group: str,
        channel: str,
        place: Position | str | None,
        begin: Callable[[], Awaitable[Any]],
    ) -> Answer:
        """Has a channel follow a group from a place; `begin` has Redis add it."""
        joining = Joining(channel, place)
        with self._lock:
            followers = self._followers(group)
            followers.join(joining, asyncio._get_running_loop())
            self._joined.setdefault(channel, set()).add(group)
        if not followers.is_settled:
            self._note_rest(followers)
        try:
            answer = await self._answered(joining, engine, followers, begin())
        except BaseException:
            with self._lock:
                followers.joining = [o for o in followers.joining if o is not joining]
            self.leave(group, channel)
            raise
        self._forget_empty(followers)  # if all left in the meantime
        return answer

    def leave(self, group: str, channel: str) -> None:
        """A channel follows a group no more."""
        with self._lock:
            groups = self._joined.get(channel, set())
            groups.discard(group)
            if not groups:
                self._joined.pop(channel, None)
            if (followers := self._groups.get(group)) is not None:
                followers.leave(channel)
                self._forget_empty(followers)

    def end(self, channel: str) -> None:
        """A channel ended."""
        for group in list(self._joined.get(channel, ())):
            self.leave(group, channel)

    def clear(self) -> None:
        """Nobody follows anything any more, whatever answers are on their way."""
        with self._lock:
            for channel in list(self._joined):
                self.end(channel)

    # What Redis keeps

    async def catch_up(self, engine: LoopEngine, groups: Iterable[str]) -> None:
        """Returns when Redis was asked what these groups may have missed.

        After a while it returns in any case; they are asked for by the clock then.
        """
        deadline = monotonic() + _LONGEST
        missed = [self._groups[group] for group in groups if group in self._groups]
        with self._lock:
            for followers in missed:
                followers.is_unsure = True
            self._rest.update(missed)
        while missed and monotonic() < deadline:
            portion, rest = missed[:_PORTION], missed[_PORTION:]
            asking = (self._questions.ask_anew(engine, one) for one in portion)
            found = zip(portion, await asyncio.gather(*asking), strict=True)
            failed = [one for one, error in found if error is not None]
            missed = rest + failed
            await asyncio.sleep(_LOOK_EVERY if failed else 0)

    def tick(self) -> None:
        """What is due by the clock, every second or so, in a loop that runs."""
        engine, now = self._existing(), monotonic()
        if engine is None or not self._groups:
            return
        with self._lock:
            rest = {one for one in self._rest if one.has_hole or one.is_unsure}
            waiting = sorted(rest.union(self._due(now)), key=attrgetter("asked_at"))
            due = waiting[:_PORTION]  # those that fail hold up no others
            if len(waiting) > _PORTION:
                self._review_at = now
        for followers in due:
            followers.asked_at = now
            self._questions.ask_in_background(engine, followers)
        if self._rest:
            self._look_soon()

    # Steps

    def _followers(self, group: str) -> Followers:
        followers = self._groups.get(group)
        if followers is None:
            rule = self._commands.rule(group)
            followers = Followers(group, rule.size, self._mailboxes, rule.ttl)
            self._groups[group] = followers
        return followers

    def _forget_empty(self, followers: Followers) -> None:
        with self._lock:
            if not len(followers) and self._groups.get(followers.group) is followers:
                del self._groups[followers.group]
                self._rest.discard(followers)

    def _due(self, now: float) -> list[Followers]:
        """Those to ask for in any case; a position that nobody asks for ends there."""
        if now < self._review_at:
            return []
        self._review_at = now + _ASK_EVERY / 2
        return [one for one in self._groups.values() if self._is_due(one, now)]

    def _is_due(self, followers: Followers, now: float) -> bool:
        every = _ASK_EVERY
        if now - followers.active_at > _ACTIVE:
            every = max(every, self._commands.rule(followers.group).position_ttl / 4)
        return now - followers.asked_at > every

    async def _answered(
        self,
        joining: Joining,
        engine: Engine,
        followers: Followers,
        begun: Awaitable[Any],
    ) -> Answer:
        """The answer to a joining, when what begun before is done.

        A command that an event loop has taken is written together with the question.
        """
        waiting = begun if isinstance(begun, asyncio.Future) else None
        if waiting is None:
            await begun
        try:
            while joining.answer is None:
                await self._questions.ask(engine, followers, joining.began)
        except BaseException:
            if waiting is not None and not waiting.cancel():
                consume(waiting)
            raise
        if waiting is not None:
            await waiting
        return joining.answer

    def _note_rest(self, followers: Followers) -> None:
        with self._lock:
            self._rest.add(followers)
        self._look_soon()

    def _look_soon(self) -> None:
        """Has somebody look at what is missing, before long."""
        engine = self._existing()
        if engine is None:
            self.look_blocking()
        elif engine.loop not in self._looks:
            self._looks.add(engine.loop)
            engine.loop.call_later(_LOOK_EVERY, self._look, engine)

    def _look(self, engine: LoopEngine) -> None:
        """Gives those who fell behind what they have room for, and asks for more."""
        self._looks.discard(engine.loop)
        with self._lock:
            lacking = [
                one
                for one in self._rest
                if (one.catch_up(engine.loop) or one.is_hole_old(_PATIENCE))
                and not one.is_unsure  # else it is asked already, or by the clock
            ]
            self._forget_settled()
        for followers in lacking:
            self._questions.ask_in_background(engine, followers)
        if self._rest:
            self._look_soon()

    def look_blocking(self) -> None:
        """The same, and what is due, for a caller that blocks, who may be alone."""
        now = monotonic()
        if not self._rest and now < self._review_at:
            return
        with self._lock:
            lacking = {
                one
                for one in self._rest
                if (one.catch_up(None) or one.has_hole)
                and not (one.is_unsure and one.asked_at > now - _LOOK_EVERY)
            }
            lacking.update(self._due(now))
            self._forget_settled()
        if lacking and (engine := self._blocking()) is not None:
            for followers in lacking:
                if run_without_loop(self._questions.asked(engine, followers)):
                    break  # an error: next time

    def _forget_settled(self) -> None:
        self._rest = {one for one in self._rest if not one.is_settled}
