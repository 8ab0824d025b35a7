"""What stands at random in names, and whose `new_channel` made one, if it tells."""

from __future__ import annotations

import re
import secrets

# As `new_channel` of the core layer, here and in channels_redis, or of a Pub/Sub layer,
# makes them by default.
_as_made = re.compile(
    r".*(\.[\w-]{16}![\w-]{16}|\.[0-9a-f]{32}![0-9a-f]{32}|specific\.[0-9a-f]{32})",
    re.ASCII,
).fullmatch

_HEX = 32
_is_hex = re.compile(r"[0-9a-f]{32}").fullmatch


def random_part() -> str:
    """96 random bits in 16 letters, digits, "-" and "_".

    Half as long as in channels_redis: a group's names are in Redis, in its replies, and
    in the messages for its members.
    """
    return secrets.token_urlsafe(12)


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
