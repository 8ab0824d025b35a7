"""What was found about a layer: one sentence, and one remedy."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Level(str, enum.Enum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"  # right, and good to know
    UNSEEN = "unknown"  # could not be looked at
    WARNING = "warning"  # it works, until something else happens
    ERROR = "error"  # it does not work


class Finding(NamedTuple):
    """One thing that was looked at: `topic`, on a server or in a layer (`where`)."""

    level: Level
    topic: str
    where: str
    text: str
    remedy: str = ""


def unseen(topic: str, where: str, reason: object, remedy: str = "") -> Finding:
    """What could not be looked at, and why."""
    return Finding(Level.UNSEEN, topic, where, f"not looked at: {reason}", remedy)
