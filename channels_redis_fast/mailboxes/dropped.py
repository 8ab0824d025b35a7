"""What the layer had to drop: counted always, logged at a limited rate."""

from __future__ import annotations

import time
from collections import Counter

from .._logs import warn

_QUIET = 10.0  # seconds between two lines of one kind


class DropCounters:
    """Counts by kind; the first of a kind is logged, then a line per 10 s at most."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """From zero; anew after a fork."""
        self._counts: Counter[str] = Counter()
        self._logged: dict[str, tuple[float, int]] = {}

    def count(self, kind: str, detail: object, number: int = 1) -> None:
        """Counts `number` messages of a kind; `detail` says which in the log line."""
        self._counts[kind] += number
        now = time.monotonic()
        when, before = self._logged.get(kind, (-_QUIET, 0))
        if now - when >= _QUIET:
            total = self._counts[kind]
            self._logged[kind] = (now, total)
            new = total - before
            warn("%s: %d messages (%s)", kind, new, detail)

    def unreadable(self, key: bytes | str, error: object) -> None:
        """Counts a message that came by a key and can't be read."""
        self.count("unreadable", f"on {key!r}: {error}")

    def snapshot(self) -> dict[str, int]:
        """The counts so far, by kind."""
        return dict(self._counts)
