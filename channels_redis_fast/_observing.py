"""What a layer tells of itself."""

from __future__ import annotations

from ._base import BaseRedisLayer
from .mailboxes.delivery import FOR_NOBODY
from .mailboxes.dropped import UNREADABLE
from .runtime.host_stats import host_stats, names_of
from .types import HostStats, Stats


class Observing(BaseRedisLayer):
    """The methods by which a layer tells what it does."""

    def stats(self) -> Stats:
        """What this layer did in this process so far, and what it has now.

        Asks nobody, so it may be called at any time, from any thread. A forked child
        begins at zero.
        """
        messages = self._ledger.total()
        memberships, subscriptions = self._joined()
        dropped = self.counters
        lost = dropped.get(UNREADABLE, 0) + dropped.get(FOR_NOBODY, 0)
        return Stats(
            sent={"channel": messages.to_channels, "group": messages.to_groups},
            full={
                "channel": messages.full_channels,
                "group": messages.full_members,
            },
            received=messages.received,
            delivered=messages.received + messages.copies - lost,
            dropped=dropped,
            mailboxes=len(self._mailboxes),
            waiting=self._mailboxes.waiting(),
            memberships=memberships,
            subscriptions=subscriptions,
            hosts=self._host_stats(),
        )

    def _joined(self) -> tuple[int, int]:
        """How many memberships there are, and how many subscriptions."""
        raise NotImplementedError

    def _host_stats(self) -> dict[str, HostStats]:
        found = {}
        engines = self._loops.all()
        for index, name in enumerate(names_of(self._hosts)):
            shards = [engine.shards[index] for engine in engines]
            found[name] = host_stats(shards, self._blocking.shards[index])
        return found


class SyncObserving:
    """The same for synchronous callers."""

    _layer: Observing

    def stats(self) -> Stats:
        """As the layer's own `stats`, which doesn't block either."""
        return self._layer.stats()
