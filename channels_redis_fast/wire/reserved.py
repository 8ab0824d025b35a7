"""Entries of messages between layers, which take them out; applications never see them.

A published message that isn't for all members of a group says so in `EXCLUDE`. `CLEAR`
tells what became of the whole group; a published one has `EXCLUDE` as well, so that
only one of them need be looked for.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection
from typing import Any

from ..exceptions import InvalidMessage, UnreadableMessage

EXCLUDE = "__asgi_exclude__"
CLEAR = "__asgi_clear__"


def reserved(message: dict[str, Any]) -> InvalidMessage:
    """The error for a message that has `EXCLUDE` already."""
    text = f"message has the reserved key {EXCLUDE!r}: {reprlib.repr(message)}"
    return InvalidMessage(text)


def with_excluded(message: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A message that isn't for the channels of these names."""
    if EXCLUDE in message:
        raise reserved(message)
    return {**dict(message.items()), EXCLUDE: sorted(map(str, names))}


def take_excluded(message: dict[str, Any]) -> frozenset[str]:
    """The names, which are taken out; raises `UnreadableMessage` for what are none."""
    names = message.pop(EXCLUDE)
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return frozenset(names)
    raise UnreadableMessage(f"no channel names: {reprlib.repr(names)}")
