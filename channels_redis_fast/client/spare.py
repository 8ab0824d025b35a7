"""Connections of readers that ended, for the next ones at the same server."""

from __future__ import annotations

from time import monotonic

from .connection import PipelinedConnection

# Who reads many normal channels in turn needs a few at a time, for a short while
# (seconds): what else there were would count against the descriptors of the process.
_MOST = 16
_LONGEST = 1.0


class SpareConnections:
    """Idle connections of one shard, since when each is.

    Without them each normal channel would open a connection, though they are read one
    after the other.
    """

    def __init__(self) -> None:
        self._found: list[tuple[float, PipelinedConnection]] = []  # oldest first

    def keep(self, connection: PipelinedConnection) -> None:
        """Keeps a connection that nobody uses; the oldest gives way."""
        if connection.error is None:
            self._found.append((monotonic(), connection))
            self._close(len(self._found) - _MOST)

    def take(self, server: str) -> PipelinedConnection | None:
        """The one to a server that was used last, if there is any."""
        for found in reversed(self._found):
            connection = found[1]
            if connection.server == server and connection.error is None:
                self._found.remove(found)
                return connection
        return None

    def close_old(self) -> None:
        """Closes those that nobody took for a while."""
        oldest = monotonic() - _LONGEST
        self._close(sum(since < oldest for since, _ in self._found))

    def clear(self) -> None:
        """Closes all: their server may not be the one to read from any more."""
        self._close(len(self._found))

    def _close(self, count: int) -> None:
        gone, self._found = self._found[: max(0, count)], self._found[max(0, count) :]
        for _, connection in gone:
            connection.abort()
