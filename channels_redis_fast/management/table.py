"""How `top` is shown: lines for a terminal, or JSON for machines."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from redis.exceptions import RedisError

from .top import Row
from .using import Write

_EVERY = 1.0  # seconds
_CLEAR = "\x1b[H\x1b[J"  # what terminals take for: from the top, empty
_LEFT = ("state", "host", "version", "")  # columns of words; the others are numbers
_SHORTEST_HOST = 8  # characters, on a narrow screen
# What only is shown if the heartbeats of some process tell it.
_MEASURED = {
    "sent/s": "sent",
    "recv/s": "received",
    "waiting": "waiting",
    "members": "members",
    "dropped": "dropped",
}
_NOBODY = "no process: those of channels_redis have no heartbeat, nor have idle scripts"

Look = Callable[[], list[Row]]


def show(
    look: Look, write: Write, tell: Write, *, once: bool, as_json: bool, is_screen: bool
) -> None:
    """Writes what is seen, every second or once.

    `tell` gets what goes wrong meanwhile; the first look raises redis-py's errors.
    """
    in_words = _as_json if as_json else _on_screen if is_screen else _as_text
    write(in_words(look()))
    told = ""
    while not once:
        time.sleep(_EVERY)
        try:
            write(in_words(look()))
            told = ""
        except RedisError as error:
            if told != (told := str(error)):
                tell(f"{told}; trying again")


def _as_json(rows: Sequence[Row]) -> str:
    return json.dumps([row._asdict() for row in rows])


def _as_text(rows: Sequence[Row]) -> str:
    return "\n".join(table(rows))


def _on_screen(rows: Sequence[Row]) -> str:
    """As many lines as the terminal has, but for one below them."""
    width, height = shutil.get_terminal_size()
    lines = table(rows, width)
    if len(lines) > (room := max(3, height - 1)):
        lines[room - 1 :] = [f"... and {len(lines) - room + 1} more"]
    return _CLEAR + "\n".join(line[:width] for line in lines)


def table(rows: Sequence[Row], width: int | None = None) -> list[str]:
    """The lines, of which the first counts; `width` is a screen's, in characters."""
    if not rows:
        return [_NOBODY]
    measured = {
        head: name
        for head, name in _MEASURED.items()
        if any(getattr(row, name) is not None for row in rows)
    }
    heads = ["state", "host", "pid", "version", "beat", *measured, ""]
    cells = [heads, *(_cells(row, measured.values()) for row in rows)]
    return [_count(rows), *_aligned(_fitted(cells, width) if width else cells)]


def _count(rows: Sequence[Row]) -> str:
    states = Counter(row.state for row in rows)
    lives = states.pop("lives", 0)
    others = (f", {count} {state}" for state, count in sorted(states.items()))
    return f"{lives} process{'' if lives == 1 else 'es'}{''.join(others)}"


def _cells(row: Row, measured: Iterable[str]) -> list[str]:
    numbers = (getattr(row, name) for name in measured)
    is_whole = row.state != "lives" or not row.unreachable
    who = [row.state if is_whole else "misses", row.host, str(row.pid), row.version]
    words = [*who, f"{row.beat:.0f} s", *map(_in_words, numbers)]
    return [_printable(word) for word in [*words, ", ".join(row.unreachable)]]


def _in_words(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _printable(text: str) -> str:
    """What others wrote into Redis must not steer the terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _fitted(cells: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """Shortens hosts so that the numbers, at least, are seen; ends tell them apart."""
    widths = _widths(cells)
    excess = sum(widths[:-1]) + 2 * (len(widths) - 2) - width
    room = max(_SHORTEST_HOST, widths[1] - excess)
    return [[state, _end(host, room), *rest] for state, host, *rest in cells]


def _end(text: str, room: int) -> str:
    return text if len(text) <= room else f"..{text[2 - room :]}"


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _aligned(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of columns, of which the first line names what they are."""
    widths = _widths(cells)
    signs = ["<" if head in _LEFT else ">" for head in cells[0]]
    form = "  ".join(
        f"{{:{sign}{width}}}" for sign, width in zip(signs, widths, strict=True)
    )
    for line in cells:
        yield form.format(*line).rstrip()
