"""What was found about a layer: one sentence, and one remedy."""

from __future__ import annotations

import enum
import shlex
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


# Who is given rights in a remedy, and where, if that isn't known.
SOMEBODY, SOMEWHERE = "NAME", "PRIMARY"


def redis_cli(where: str, *words: str) -> str:
    """A command at a server, by its name in findings, as one types it into a shell.

    A primary that no Sentinel named has no address there.
    """
    address = ("-u", where if "://" in where else f"redis://{where}")
    if where.startswith("unix://"):
        address = ("-s", where.removeprefix("unix://"))
    elif " " in where:
        address = ("-u", f"redis://{SOMEWHERE}")
    return shlex.join(("redis-cli", *address, *words))


def grant(where: str, user: str, *rights: str) -> str:
    """The same, which gives a user rights."""
    return redis_cli(where, "ACL", "SETUSER", user, *rights)


def set_for_good(where: str, setting: str, value: str) -> str:
    """The same for a setting, which is to outlast the server."""
    return f"{redis_cli(where, 'CONFIG', 'SET', setting, value)}  # and in redis.conf"
