"""What the layers' methods return, besides messages and names."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Process"]


class Process(NamedTuple):
    """A process that uses a layer, as its last heartbeat told.

    `last_beat` is a Unix time (seconds) by Redis's clock.
    """

    id: str  # what the names of its channels have between the first point and the "!"
    host: str
    pid: int
    version: str  # of this package
    last_beat: float
    stats: dict[str, Any]  # what `layer.stats()` said there; empty if it says nothing
