"""The processes of a layer, by their heartbeats, looked at again and again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from redis.exceptions import RedisError

from .._base import BaseRedisLayer
from ..diagnosis.server import Server
from ..runtime.blocking_engine import run_without_loop
from ..types import Process

_SHOWN_FOR = 60.0  # seconds that a process is shown when it is no longer there
# In units of `liveness`, of which a beat is a third: who ends in order was heard since.
_HEARD = 1 / 2

State: TypeAlias = Literal["lives", "silent", "gone"]


class Row(NamedTuple):
    """What is shown of a process; None: its heartbeat doesn't tell.

    `beat` is how long (seconds) its last heartbeat is ago. A process that is "silent"
    was killed or stands still; one that is "gone" ended in order. `sent` and `received`
    are messages a second between its last two heartbeats, `unreachable` the servers
    that it misses.
    """

    id: str
    host: str
    pid: int
    version: str
    state: State
    beat: float
    sent: float | None
    received: float | None
    waiting: float | None
    members: float | None
    dropped: float | None
    unreachable: list[str]


@dataclass
class _Seen:
    """A process: its last heartbeat, the one before, and when it was missed first."""

    last: Process
    before: Process | None = None
    state: State = "lives"
    missed: float = 0.0

    def take(self, found: Process) -> None:
        if found.last_beat != self.last.last_beat:
            self.last, self.before = found, self.last
        self.state = "lives"

    def miss(self, now: float, heard: float) -> None:
        """Notes that it is not there; silent, if it was not `heard` for so long."""
        if self.state == "lives":
            is_silent = now - self.last.last_beat >= heard
            self.state, self.missed = "silent" if is_silent else "gone", now

    def row(self, now: float) -> Row:
        one, stats = self.last, self.last.stats
        return Row(
            id=one.id,
            host=one.host,
            pid=one.pid,
            version=one.version,
            state=self.state,
            beat=max(0.0, now - one.last_beat),
            sent=self._rate("sent"),
            received=self._rate("received"),
            waiting=_number(stats, "waiting"),
            members=_number(stats, "memberships"),
            dropped=_number(stats, "dropped"),
            unreachable=_unreachable(stats.get("hosts")),
        )

    def _rate(self, name: str) -> float | None:
        """Messages a second between two heartbeats."""
        one, before = self.last, self.before
        if before is None or self.state != "lives":
            return None
        now, then = _number(one.stats, name), _number(before.stats, name)
        seconds = one.last_beat - before.last_beat
        if now is None or then is None or seconds <= 0:
            return None
        return max(0.0, (now - then) / seconds)


class Top:
    """Looks at the processes of a layer."""

    def __init__(self, layer: BaseRedisLayer) -> None:
        self._layer: Any = layer
        self._heard = layer._settings.liveness * _HEARD
        self._seen: dict[str, _Seen] = {}  # by id

    def look(self) -> list[Row]:
        """The processes that live, but for this one, and those that did a minute ago.

        Raises redis-py's errors.
        """
        now = self._clock()
        found = {one.id: one for one in self._layer.sync.processes()}
        found.pop(self._layer.client_prefix, None)
        for id_, one in found.items():
            self._seen.setdefault(id_, _Seen(one)).take(one)
        for id_ in self._seen.keys() - found.keys():
            self._seen[id_].miss(now, self._heard)
        self._forget(now)
        return sorted((seen.row(now) for seen in self._seen.values()), key=_urgency)

    def close(self) -> None:
        """Takes away its own heartbeat, which others would see for a while."""
        with suppress(RedisError):
            run_without_loop(self._layer._heartbeat.leave(self._layer._engine()))
        self._layer.sync.close()

    def _clock(self) -> float:
        """The time by the server that has the heartbeats."""
        layer, seconds = self._layer, self._layer.command_timeout
        shard = layer._blocking.shards[layer._operations.liveness.home]
        pool = shard.primaries(time.monotonic() + seconds)[0]
        return time.time() + Server(pool, seconds).clock()

    def _forget(self, now: float) -> None:
        """Those that are not there for long."""
        for id_, seen in list(self._seen.items()):
            if seen.state != "lives" and now - seen.missed > _SHOWN_FOR:
                del self._seen[id_]


def _urgency(row: Row) -> tuple[bool, str, int]:
    """What is wrong comes first."""
    return row.state != "silent" and not row.unreachable, row.host, row.pid


def _number(stats: Mapping[str, Any], name: str) -> float | None:
    """What another process says, whatever its version: a number, or some by kind."""
    value = stats.get(name)
    if isinstance(value, Mapping):
        return sum(_numbers(value.values()))
    return next(_numbers([value]), None)


def _numbers(values: Iterable[Any]) -> Iterator[float]:
    return (value for value in values if isinstance(value, int | float))


def _unreachable(hosts: Any) -> list[str]:
    """The servers that a process can't use now."""
    if not isinstance(hosts, Mapping):
        return []
    states = {
        name: about.get("state")
        for name, about in hosts.items()
        if isinstance(about, Mapping)
    }
    return [f"{name} {s}" for name, s in states.items() if s in ("down", "refusing")]
