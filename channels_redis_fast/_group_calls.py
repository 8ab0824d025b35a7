"""What both layers do with groups beyond the channel-layer specification."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any

from ._base import BaseRedisLayer
from ._core_parts import CoreParts
from ._pubsub_names import PubSubNames
from .exceptions import InvalidName


class GroupCalls(BaseRedisLayer):
    """What is alike in both layers."""

    def _names(self, exclude: Any) -> list[str]:
        """Checks whom a message is not for; raises `TypeError` for no channel names."""
        if isinstance(exclude, (bytes, bytearray)) or not isinstance(exclude, Iterable):
            text = "exclude must be a channel name or several"
            raise InvalidName(f"{text}, not {reprlib.repr(exclude)}")
        names = [exclude] if isinstance(exclude, str) else list(exclude)
        for name in names:
            self._check_name(name)
        return names

    def _check_name(self, channel: Any) -> object:
        """Raises `TypeError` for what is no channel name."""
        return self._non_local(channel)


class CoreGroupCalls(GroupCalls, CoreParts):
    """As the core layer does them."""

    def _encoded(self, exclude: Any) -> frozenset[bytes]:
        """Whom a message is not for, as Redis has the members of a group."""
        return frozenset(name.encode() for name in self._names(exclude))


class PubSubGroupCalls(GroupCalls, PubSubNames):
    """As the Pub/Sub layer does them."""

    def _check_name(self, channel: Any) -> object:
        return self._is_published(channel)


class SyncGroupCalls:
    """The same for callers without an event loop."""
