"""What a core layer has in this process: mailboxes, memberships, engines."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager

from redis.exceptions import RedisError

from ._hooks import key_after
from ._observing import Observing
from ._settings import Settings
from .client.blocking_shards import BlockingShards
from .client.steps import Steps
from .client.topology import Owns
from .mailboxes.mailbox import MailboxGroup
from .mailboxes.registry import LocalChannels
from .runtime.base_engine import Engine
from .runtime.blocking_engine import BlockingEngine, run_without_loop
from .runtime.engine import LoopEngine
from .runtime.loops import LoopRegistry, weakly
from .runtime.memberships import Memberships
from .wire._names import split_local

_TIDY_EVERY = 1.0  # seconds


class CoreParts(Observing):
    """Makes the parts of a core layer, anew after a fork, and keeps its keys read."""

    _loops: LoopRegistry[LoopEngine]

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._operations = self._make_operations(self._codec, self._group_key_of())
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

    def _begin(self) -> None:
        """The state of this process; anew after a fork."""
        super()._begin()
        self._memberships = Memberships(
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
        engine = BlockingEngine(self._blocking, self.command_timeout)
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
