"""Whose `new_channel` made a name, as far as the name tells."""

from __future__ import annotations

import re

# As `new_channel` of the core layer, or of a Pub/Sub layer, makes them by default.
_as_made = re.compile(
    r".*(\.[0-9a-f]{32}![0-9a-f]{32}|specific\.[0-9a-f]{32})"
).fullmatch

_HEX = 32
_is_hex = re.compile(r"[0-9a-f]{32}").fullmatch


def is_made_here(channel: str, prefix: str) -> bool:
    """Whether a channel is named as `new_channel` of a layer with this prefix does."""
    return (
        channel.startswith(prefix)
        and _is_hex(channel, len(channel) - _HEX) is not None
        and len(channel) >= len(prefix) + _HEX
    )


def is_made_elsewhere(channel: str, prefix: str) -> bool:
    """Whether another layer than the one with this prefix made a channel."""
    return not channel.startswith(prefix) and _as_made(channel) is not None
