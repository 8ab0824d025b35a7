"""What the layers' methods return, where it is more than a message or a number."""

from __future__ import annotations

from typing import NamedTuple


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
