"""Where a message is in the history of its group: a position, as numbers and text.

In the hands of receivers an entry of the message says "<group>@<id>"; on its way
"<id>", or "<id>@<group>" where the key that it travels through doesn't tell the group.
So what is forwarded as it came passes for no position.
"""

from __future__ import annotations

import re
from typing import Any

# An epoch (a history without a break; milliseconds of its begin) and an offset in it.
Position = tuple[int, int]

ID_SIZE = 26  # bytes
_ID = re.compile(r"([0-9]{13})-([0-9]{12})")


def id_of(position: Position) -> str:
    """A position as text, as long as any other one."""
    return f"{position[0]:013d}-{position[1]:012d}"


def read_id(text: Any) -> Position | None:
    """The position that `id_of` was given; None for all else."""
    found = _ID.fullmatch(text) if isinstance(text, str) else None
    return None if found is None else (int(found[1]), int(found[2]))


def placed(group: str, position: Position) -> str:
    """A position in a group, as users have it."""
    return f"{group}@{id_of(position)}"


def read_placed(group: str, text: str) -> Position | None:
    """The position that `placed` was given; None for all else, of whatever length."""
    begin = f"{group}@"
    is_one = text.startswith(begin) and len(text) == len(begin) + ID_SIZE
    return read_id(text[len(begin) :]) if is_one else None


def read_wire(value: Any, group: str | None) -> str | None:
    """What `placed` says of a message on its way; None for what is no position.

    `group`: of the key that it came by; None: it is named.
    """
    if not isinstance(value, str) or _ID.match(value) is None:
        return None
    if len(value) > ID_SIZE and group is None and value[ID_SIZE] == "@":
        return f"{value[ID_SIZE + 1 :]}@{value[:ID_SIZE]}"
    return f"{group}@{value}" if len(value) == ID_SIZE and group is not None else None
