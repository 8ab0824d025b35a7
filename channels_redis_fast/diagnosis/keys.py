"""The keys under a layer's prefix, by what they are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from ..commands.retry import scan
from .finding import Finding, Level
from .server import Server

_LONGEST = 2.0  # seconds: a server may have millions of keys, most of them not ours
_INFLIGHT = "$inflight"


def look_at_keys(server: Server, prefix: str, pattern: bytes) -> Iterator[Finding]:
    """How many keys of which kind there are on a server."""
    counts, deadline = Counter[str](), time.monotonic() + _LONGEST
    for keys in scanned(server, pattern):
        counts.update(_kind(key.removeprefix(prefix)) for key in keys)
        if time.monotonic() > deadline:
            break
    is_whole = time.monotonic() <= deadline
    told = ", ".join(f"{kind}: {n:,}" for kind, n in sorted(counts.items())) or "none"
    begin = (
        f"keys {prefix}*" if is_whole else f"the first keys {prefix}* that were found"
    )
    yield Finding(Level.OK, "keys", server.name, f"{begin}: {told}")
    if left := counts[_OF_OTHERS]:
        text = f"{left:,} keys end in {_INFLIGHT}: channels_redis runs here, or did"
        remedy = "while it runs, see the page on migrating; later, flush removes them"
        yield Finding(Level.NOTE, "inflight", server.name, text, remedy)


def scanned(server: Server, pattern: bytes) -> Iterator[list[str]]:
    """The keys of a server that match a glob, as they come; raises redis-py's errors.

    After each look at a thousand keys, of which there may be many others.
    """
    cursor = b""
    while cursor != b"0":
        cursor, keys = server.ask(*scan(pattern, cursor))
        yield [key.decode("utf-8", "replace") for key in keys]


_OF_OTHERS = f"of channels_redis ({_INFLIGHT})"


def _kind(name: str) -> str:
    """What a key is, by its name without the prefix."""
    if name.endswith(_INFLIGHT):
        return _OF_OTHERS
    if name.startswith(":"):  # as :group:NAME, :alive:{processes}
        kind = name.split(":")[1]
        return "groups" if kind == "group" else kind
    return "processes' channels" if name.endswith("!") else "normal channels"
