"""The names that a Pub/Sub layer publishes to, and the bytes that it publishes."""

from __future__ import annotations

from typing import Any

from ._pubsub_parts import PubSubParts
from ._settings import Settings
from .exceptions import InvalidName
from .wire.codec import Message
from .wire.made_names import is_made_here
from .wire.reserved import EXCLUDE, reserved, with_excluded

_REMEMBERED = 1024  # names


class PubSubNames(PubSubParts):
    """Which names there are, and what goes there."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._published: dict[str, bool] = {}  # names that were checked

    def _is_published(self, channel: Any) -> bool:
        """Checks a name; whether its messages are published, not stored.

        Those are names as `new_channel` makes them: this layer's prefix, any other,
        32 hexadecimal digits. The layer's own prefix is not part of what is checked.
        """
        try:
            known = self._published.get(channel)
        except TypeError:  # it has no hash, so it is no name
            known = None
        if known is not None:
            return known
        published = self._classify(channel)
        if self._names_are_fast:  # else a subclass's rules may change
            if len(self._published) >= _REMEMBERED:
                self._published.clear()
            self._published[str(channel)] = published  # a copy keeps no channel alive
        return published

    def _classify(self, channel: Any) -> bool:
        ours = isinstance(channel, str) and is_made_here(channel, self.prefix)
        self._non_local(channel[len(self.prefix) :] if ours else channel)
        if channel.startswith(self._groups_begin):
            raise InvalidName(f"channel names can't begin as groups do: {channel!r}")
        return ours or self.normal_channels == "broadcast"

    def _payload(self, name: str, message: Message) -> bytes:
        body = self._codec.body(message)
        if EXCLUDE in message:
            raise reserved(message)
        return self._codec.seal(body, None, name.encode())

    def _payload_but_for(
        self, name: str, message: Message, excluded: list[str]
    ) -> bytes:
        """As `_payload`, for all but some channels."""
        if not excluded:
            return self._payload(name, message)
        self._codec.body(message)  # it is a message
        body = self._codec.body(with_excluded(message, excluded))
        return self._codec.seal(body, None, name.encode())
