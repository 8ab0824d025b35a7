"""What is said of a host: once when it goes or refuses, and once when that is over."""

from __future__ import annotations

from .._logs import warn
from .host import Host
from .reconnecting import ReconnectingConnection


class Health:
    """Which links to a host are down; whether it refuses what is tried again."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._down: set[ReconnectingConnection] = set()
        self.is_refusing = False

    @property
    def is_down(self) -> bool:
        """Whether a connection was lost, and is not back yet."""
        return bool(self._down)

    def lost(self, link: ReconnectingConnection, error: Exception) -> None:
        """A link's connection was lost, or an attempt failed."""
        is_first = not self._down
        self._down.add(link)
        if is_first:
            warn("Redis at %s is gone: %s", self._host, error)

    def back(self, link: ReconnectingConnection) -> None:
        """A link's connection is there."""
        if link in self._down:
            self._down.discard(link)
            next(self._host.traffic.reconnects)
            if not self._down:
                warn("Redis at %s is back", self._host)

    def forget(self, link: ReconnectingConnection) -> None:
        """A link was closed."""
        self._down.discard(link)

    def refused(self, error: Exception) -> None:
        """Redis refused what is tried again."""
        if not self.is_refusing:
            self.is_refusing = True
            text = "Redis at %s refuses commands, which are tried again: %s"
            warn(text, self._host, error)

    def taken(self) -> None:
        """Redis took what it had refused."""
        if self.is_refusing:
            self.is_refusing = False
            warn("Redis at %s takes commands again", self._host)
