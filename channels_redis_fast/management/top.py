"""A line for each process of a layer, from their heartbeats."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..diagnosis.server import Server

_EVERY = 1.0  # seconds
_CLEAR = "\x1b[H\x1b[J"  # what terminals take for: from the top, empty
_GONE_FOR = 60.0  # seconds that a process is shown which beats no more
_LINE = "{:<20} {:>8} {:<9} {:>6} {:>9} {:>9} {:>8} {:>8} {:>8}  {}"
_HEAD = ("host", "pid", "version", "beat", "sent/s", "recv/s", "waiting", "members")
_UNKNOWN = "-"


class Row(NamedTuple):
    """What is shown of a process; None: its heartbeat doesn't tell.

    `beat` is how long (seconds) its last heartbeat is ago. `sent` and `received` are
    messages a second between its last two heartbeats.
    """

    id: str
    host: str
    pid: int
    version: str
    beat: float
    sent: float | None
    received: float | None
    waiting: int | None
    members: int | None
    dropped: int | None
    state: str


class Top:
    """Looks at the processes of a layer again and again."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        pool = layer._blocking.shards[0].primaries(_in(layer.command_timeout))[0]
        self._ahead = Server(pool, layer.command_timeout).clock()
        self._last: dict[str, Any] = {}  # the last heartbeat of each, by id
        self._before: dict[str, Any] = {}  # and the one before

    def look(self) -> list[Row]:
        """The processes that live, and those that did a minute ago; but for this one.

        Raises redis-py's errors.
        """
        found = {one.id: one for one in self._layer.sync.processes()}
        found.pop(self._layer.client_prefix, None)
        for one in found.values():
            last = self._last.get(one.id)
            if last is not None and last.last_beat != one.last_beat:
                self._before[one.id] = last
            self._last[one.id] = one
        now = time.time() + self._ahead
        for id_, one in list(self._last.items()):
            if now - one.last_beat > _GONE_FOR and id_ not in found:
                del self._last[id_]
        return [self._row(one, now, one.id in found) for one in self._last.values()]

    def _row(self, one: Any, now: float, lives: bool) -> Row:
        stats, before = one.stats, self._before.get(one.id)
        dropped = stats.get("dropped")
        return Row(
            one.id,
            one.host,
            one.pid,
            one.version,
            max(0.0, now - one.last_beat),
            _rate(one, before, "sent") if lives else 0.0,
            _rate(one, before, "received") if lives else 0.0,
            stats.get("waiting"),
            stats.get("memberships"),
            None if dropped is None else _sum(dropped),
            _hosts_down(stats.get("hosts") or {}) if lives else "gone",
        )


def run(
    top: Top, write: Callable[[str], object], *, once: bool, as_json: bool, clear: bool
) -> None:
    """Writes what is seen every second, or once; as a line of JSON each time."""
    while True:
        rows = top.look()
        if as_json:
            write(json.dumps([row._asdict() for row in rows]))
        else:
            write((_CLEAR if clear else "") + "\n".join(_lines(rows)))
        if once:
            return
        time.sleep(_EVERY)


def _lines(rows: Iterable[Row]) -> list[str]:
    lines = [_LINE.format(*_HEAD, "dropped", "")]
    for row in sorted(rows, key=lambda row: (row.host, row.pid)):
        numbers = map(_in_words, row[5:10])
        beat = f"{row.beat:.0f} s"
        names = row.host[:20], row.pid, row.version[:9]
        lines.append(_LINE.format(*names, beat, *numbers, row.state).rstrip())
    return lines


def _in_words(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:,.0f}"


def _rate(one: Any, before: Any, name: str) -> float | None:
    """Messages a second between two heartbeats."""
    if before is None or name not in one.stats or name not in before.stats:
        return None
    seconds = one.last_beat - before.last_beat
    count = _sum(one.stats[name]) - _sum(before.stats[name])
    return max(0.0, count / seconds) if seconds > 0 else None


def _sum(value: int | Mapping[str, int]) -> int:
    return sum(value.values()) if isinstance(value, Mapping) else value


def _hosts_down(hosts: Mapping[str, Any]) -> str:
    """The servers that a process can't reach."""
    states = {name: about.get("state") for name, about in hosts.items()}
    down = [f"{name} {s}" for name, s in states.items() if s in ("down", "refusing")]
    return ", ".join(down)


def _in(seconds: float) -> float:
    return time.monotonic() + seconds
