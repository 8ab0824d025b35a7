"""Settings of a server that layers depend on, where CONFIG GET is allowed."""

from __future__ import annotations

from collections.abc import Iterator

from .finding import Finding, Level, set_for_good
from .server import Server

_MIB = 2**20
# Redis's own: hard (bytes), soft (bytes), for so many seconds.
_DEFAULT = (32 * _MIB, 8 * _MIB, 60)
_RIGHT = {"normal": "normal 0 0 0", "pubsub": "pubsub 256mb 64mb 60"}
_SHORTEST_TIMEOUT = 60  # seconds


def look_at_settings(server: Server, kind: str) -> Iterator[Finding]:
    """Output buffers of a kind of clients (normal or pubsub), and the idle timeout."""
    yield from _buffers(server, kind)
    yield from _timeout(server)


def _buffers(server: Server, kind: str) -> Iterator[Finding]:
    name = "client-output-buffer-limit"
    hard, soft, seconds = _limits(server.setting(name) or "", kind)
    limits = f"{name} {kind} {hard} {soft} {seconds}"
    if 0 < hard < _DEFAULT[0] or 0 < soft < _DEFAULT[1]:
        who = "subscriber" if kind == "pubsub" else "reader"
        least = min(limit for limit in (hard, soft) if limit)
        text = f"{limits}: a {who} that is {_size(least)} behind is cut off"
        remedy = set_for_good(server.name, name, _RIGHT[kind])
        yield Finding(Level.WARNING, "buffers", server.name, text, remedy)
    else:
        yield Finding(Level.OK, "buffers", server.name, limits)


def _limits(text: str, kind: str) -> tuple[int, int, int]:
    """Those of a kind of clients, out of all; 0: none."""
    words = text.split()
    for start in range(0, len(words) - 3, 4):
        if words[start] == kind:
            hard, soft, seconds = map(int, words[start + 1 : start + 4])
            return hard, soft, seconds
    return 0, 0, 0


def _size(count: int) -> str:
    return f"{count / _MIB:.1f} MiB" if count >= _MIB / 10 else f"{count:,} bytes"


def _timeout(server: Server) -> Iterator[Finding]:
    seconds = int(server.setting("timeout") or 0)
    if seconds == 0:
        text = "idle connections are kept (timeout 0)"
        yield Finding(Level.OK, "timeout", server.name, text)
        return
    level = Level.WARNING if seconds < _SHORTEST_TIMEOUT else Level.NOTE
    text = f"connections that are idle for {seconds} s are closed, and opened anew"
    remedy = set_for_good(server.name, "timeout", "0")
    yield Finding(level, "timeout", server.name, text, remedy)
