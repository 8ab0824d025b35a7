"""The values that the layers' methods take and return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# A `since` before all that is kept.
BEGINNING = "beginning"

# The key of a message's entry that says where it is in the history of its group.
POSITION = "__asgi_position__"


def position_of(message: Mapping[str, Any]) -> str | None:
    """The position of a message that came by a group with a history; None for others.

    It is a `since` for `group_join` and the like, and an id for server-sent events.
    """
    value = message.get(POSITION)
    return value if isinstance(value, str) else None


class History(NamedTuple):
    """What is kept of a group's messages: a value of the option `history`.

    The last `size` messages (100 messages: 100), until `ttl` seconds after the newest
    of them. Positions are known for `position_ttl` seconds after it.
    """

    size: int
    ttl: int
    position_ttl: int = 86_400


class Recovery(NamedTuple):
    """What `group_join` found: whether all that came after `since` is replayed.

    `position` is where the channel is then, and `replayed` how many messages (0 or
    more) it gets before anything newer. Without a `since` nothing is, and all is well.
    """

    position: str
    recovered: bool
    replayed: int


class Page(NamedTuple):
    """What `group_history` found: messages, and where to go on from.

    `recovered`: nothing is missing between what was asked for and these.
    """

    messages: list[dict[str, Any]]
    position: str
    recovered: bool
