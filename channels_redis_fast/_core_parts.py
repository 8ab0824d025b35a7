"""What a core layer has in this process: mailboxes, memberships, engines."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from redis.exceptions import RedisError

from ._history_parts import HistoryParts
from ._hooks import key_after, serializer_for
from ._observing import Observing
from ._settings import HistoryTable, Settings
from .client.blocking_shards import BlockingShards
from .client.steps import Steps
from .client.topology import Owns
from .commands.history import HistoryCommands
from .mailboxes.mailbox import MailboxGroup
from .mailboxes.registry import LocalChannels
from .runtime.base_engine import Engine
from .runtime.blocking_engine import BlockingEngine, run_without_loop
from .runtime.engine import LoopEngine
from .runtime.followed import FollowedMemberships
from .runtime.loops import LoopRegistry, weakly
from .runtime.memberships import Memberships
from .wire._names import split_local
from .wire.codec import codec_of
from .wire.placed import PlacedCodec, parts_for

_TIDY_EVERY = 1.0  # seconds


class CoreParts(HistoryParts, Observing):
    """Makes the parts of a core layer, anew after a fork, and keeps its keys read."""

    _loops: LoopRegistry[LoopEngine]

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        group_key = self._group_key_of()
        if self._histories is not None:
            self._history = self._make_history(self._histories, group_key)
        self._operations = self._make_operations(self._codec, group_key)
        self._loops = self._make_loops()
        self._blocking = BlockingShards(self._hosts, weakly(self._restore))
        self._begin()

    def _group_key(self, group: str) -> bytes:
        """The key of a group."""
        return key_after(f"{self.prefix}:group:", group)

    def _group_key_of(self) -> Callable[[str], bytes]:
        if type(self)._group_key is not CoreParts._group_key:
            return self._group_key
        return functools.partial(key_after, f"{self.prefix}:group:")

    def _make_history(
        self, table: HistoryTable, group_key: Callable[[str], bytes]
    ) -> HistoryCommands:
        """What is kept has no unique bytes, and may be older than what is received."""
        settings, limit, kept = self._settings, self._size_limit, self._codec
        is_ours = not self._is_overridden("serialize", "deserialize")
        serializer = serializer_for(settings) if is_ours else None
        if serializer is not None:
            kept = codec_of(serializer, limit)
        parts = parts_for(serializer, is_ours)
        self._codec = PlacedCodec(self._codec, limit, parts)
        kept = PlacedCodec(kept, limit, parts)
        shard_of = self._shard_of()
        return HistoryCommands(table, self.prefix, kept, group_key, shard_of)

    def _begin(self) -> None:
        """The state of this process; anew after a fork."""
        super()._begin()
        self._memberships = self._make_memberships(
            self._operations, self.group_expiry, self.refresh_groups
        )
        self._heartbeat = self._make_heartbeat(self._memberships)
        self._mailboxes = LocalChannels(
            expiry=self.expiry,
            capacity_of=self._capacity_of(),
            inbox_of=split_local,
            counters=self._counters,
            on_wait=weakly(self._wake_owner),
            on_end=self._memberships.end,
        )
        note = self._memberships.clearing.note
        self._begin_delivery(self._codec, note, lambda local: local)

    def _make_memberships(self, *args: Any) -> Memberships:
        if self._history is None:
            return Memberships(*args)
        return FollowedMemberships(weakly(self._unfollow), *args)

    def _unfollow(self, group: str, channel: str) -> None:
        if self._replays is not None:
            self._replays.leave(group, channel)

    def _joined(self) -> tuple[int, int]:
        return len(self._memberships), 0

    def _joining(self, group: str, channel: str) -> AbstractContextManager[None]:
        """While a channel is added: only our own are ours to look after."""
        if channel in self._mailboxes:
            return self._memberships.joining(group, str(channel))
        return contextlib.nullcontext()

    def _engine(self) -> Engine:
        return self._loops.engine_for_call() or self._inline()

    def _inline(self) -> BlockingEngine:
        engine = self._blocking_engine()
        self._tidy()
        return engine

    def _tidy(self) -> None:
        """What a `LoopEngine` does by its clock, for callers that block.

        Each part takes a quarter of their time at most.
        """
        if not self._mailboxes.is_swept(_TIDY_EVERY):
            self._mailboxes.sweep()
        if self._memberships.refreshes_due:
            engine = BlockingEngine(self._blocking, self.command_timeout / 4)
            with contextlib.suppress(RedisError):  # next time
                run_without_loop(self._memberships.tend(engine.run_all))
        if self._replays is not None:
            self._replays.look_blocking()
        self._beat_when_due()

    def _make_local(self) -> LoopEngine:
        return self._make_engine(self._memberships, weakly(self._offer))

    def _wake_owner(self, inbox: MailboxGroup) -> None:
        """Sees to it that an inbox is fed, from this loop if from no other."""
        local, owners = self._loops.engine(), self._mailboxes.owners
        while True:
            reader = owners.ensure(inbox, local.make_reader)
            if reader.loop is not local.loop and not inbox.stalled:
                return  # it reads without being told
            try:
                reader.resume()
                return
            except RuntimeError:  # its loop was closed over its head
                owners.release(inbox, reader)

    def _offer(self, inbox: MailboxGroup) -> None:
        """Lets a loop in which somebody waits read a key that nobody reads."""
        loops = self._mailboxes.owners.waiting_loops(inbox)
        self._loops.call_in(loops, self._wake_owner, inbox)

    def _restore(self, index: int, owns: Owns, anew: bool) -> Steps | None:
        """As a `LoopEngine` does, if this process has members."""
        if not len(self._memberships):
            return None
        return self._memberships.restoration.steps(index, owns, anew)
