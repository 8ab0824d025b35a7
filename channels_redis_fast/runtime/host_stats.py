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
    return Durations(
        bounds=list(BOUNDS), counts=list(histogram.counts), sum=histogram.sum
    )


def names_of(hosts: list[Any]) -> Iterator[str]:
    """Each host in words; a number tells apart those that these are the same of."""
    seen: Counter[str] = Counter()
    for host in map(str, hosts):
        seen[host] += 1
        yield host if seen[host] == 1 else f"{host} ({seen[host]})"


def host_stats(shards: list[Shard], blocking: BlockingShard) -> HostStats:
    """What the shards of all loops, and that of all threads, know of their host."""
    traffic = blocking.host.traffic.total()
    found = [shard.unanswered() for shard in shards]
    oldest = min((since for _, since in found), default=0.0)
    unanswered = sum(count for count, _ in found)
    return HostStats(
        state=_state([*shards, blocking]),
        reconnects=traffic.reconnects,
        unanswered=unanswered,
        oldest_unanswered=max(0.0, monotonic() - oldest) if unanswered else 0.0,
        bytes_sent=traffic.bytes_sent,
        bytes_received=traffic.bytes_received,
        roundtrips=durations(traffic.roundtrips),
    )


def _state(shards: list[Any]) -> Any:
    for state in ("down", "refusing", "up"):
        if any(getattr(shard, f"is_{state}") for shard in shards):
            return state
    return "unused"
