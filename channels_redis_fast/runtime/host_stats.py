"""What is known of a host, put together from all loops and threads; no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from time import monotonic
from typing import Any

from .._counting import BOUNDS, Histogram
from ..client.blocking_shard import BlockingShard
from ..client.shard import Shard
from ..types import Durations, HostStats


def durations(histogram: Histogram) -> Durations:
    """A histogram as users get it."""
    counts, total = histogram.snapshot()
    return Durations(bounds=list(BOUNDS), counts=counts, sum=total)


def names_of(hosts: list[Any]) -> Iterator[str]:
    """Each host in words; a number tells apart those that these are the same of."""
    seen: Counter[str] = Counter()
    for host in map(str, hosts):
        seen[host] += 1
        yield host if seen[host] == 1 else f"{host} ({seen[host]})"


def host_stats(shards: list[Shard], blocking: BlockingShard) -> HostStats:
    """What the shards of all loops, and that of all threads, know of their host."""
    traffic = blocking.host.traffic
    found = [shard.unanswered() for shard in shards]
    oldest = min((since for _, since in found), default=0.0)
    unanswered = sum(count for count, _ in found)
    return HostStats(
        state=_worst([blocking.state, *(shard.state for shard in shards)]),
        reconnects=traffic.reconnects.value,
        unanswered=unanswered,
        oldest_unanswered=max(0.0, monotonic() - oldest) if unanswered else 0.0,
        roundtrips=durations(traffic.roundtrips),
    )


def _worst(states: list[str]) -> Any:
    return min(states, key=("down", "refusing", "up", "unused").index)
