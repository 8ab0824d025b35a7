"""What a layer has of groups with a history: what is kept, and who follows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._base import BaseRedisLayer
from ._settings import Settings
from .commands.history import HistoryCommands
from .mailboxes.delivery import Delivery
from .mailboxes.mailbox import MailboxGroup
from .runtime.appends import Appends
from .runtime.blocking_engine import BlockingEngine
from .runtime.engine import LoopEngine
from .runtime.loops import weakly
from .runtime.memberships import Memberships
from .runtime.replays import Replays
from .wire.codec import Codec


class HistoryParts(BaseRedisLayer):
    """Makes what brings messages to channels, in the order of a history or not."""

    _history: HistoryCommands | None = None  # of groups that have one
    _replays: Replays | None = None

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._histories = settings.histories()

    def _begin_delivery(
        self,
        codec: Codec,
        on_clear: Callable[[Any, bytes], object],
        engine_of: Callable[[Any], LoopEngine],
    ) -> None:
        """Anew after a fork: `engine_of` gives the engine of what a loop has."""
        if self._history is not None:
            self._replays = self._make_replays(self._history, engine_of)
        self._delivery = Delivery(
            self._mailboxes, codec, self._counters, on_clear, self._replays
        )

    def _make_replays(
        self, history: HistoryCommands, engine_of: Callable[[Any], LoopEngine]
    ) -> Replays:
        existing, blocking = self._loops.existing, weakly(self._blocking_engine)

        def here() -> LoopEngine | None:
            return None if (local := existing()) is None else engine_of(local)

        return Replays(history, self._mailboxes, here, blocking)

    def _blocking_engine(self) -> BlockingEngine:
        return BlockingEngine(self._blocking, self.command_timeout)

    def _make_engine(
        self, memberships: Memberships, offer: Callable[[MailboxGroup], None]
    ) -> LoopEngine:
        engine = super()._make_engine(memberships, offer)
        if self._replays is not None:
            spawn = engine.spawn_to_its_end
            engine.appends = Appends(engine.loop, engine.run_all, spawn)
            engine.on_tick.append(self._replays.tick)
        return engine
