"""What the layers' methods return: plain values."""

from __future__ import annotations

from typing import Any, NamedTuple


class Process(NamedTuple):
    """A process that uses a layer, as its last heartbeat told.

    `last_beat` is a Unix time (seconds) by Redis's clock.
    """

    id: str  # what the names of its channels have between the first point and the "!"
    host: str
    pid: int
    version: str  # of this package
    last_beat: float
    stats: dict[str, Any]  # what `layer.stats()` said there; empty if it says nothing


class SendResult(NamedTuple):
    """Whom a message to a group reached, as far as Redis says.

    `members`: how many it was for, without those excluded; None: nobody knows
    (Pub/Sub). `processes`: how many processes those are in, of which one counts for
    each prefix that its channels have, and for each 10,000 members; by Pub/Sub, how
    many were subscribed; None on a Cluster with classic Pub/Sub, which doesn't say.
    `full`: how many of the processes had no room for it; it is lost to their members.
    """

    members: int | None
    processes: int | None
    full: int


class Ping(NamedTuple):
    """What one server of `hosts` answered, as `layer.ping()` found it.

    `host` is its name without credentials. `seconds` is the round trip over an open
    connection, None if there is an `error`. `subscriber` says whether subscriptions of
    this process at that server are up; None where it has none, as a core layer.
    """

    host: str
    seconds: float | None
    error: str | None = None
    subscriber: bool | None = None

    @property
    def is_well(self) -> bool:
        """Whether the server answered, and hears and tells what it should."""
        return self.error is None and self.subscriber is not False
