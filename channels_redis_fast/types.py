"""What the layers' methods return: plain values."""

from __future__ import annotations

from typing import NamedTuple


class SendResult(NamedTuple):
    """Whom a message to a group reached, as far as Redis says.

    `members`: how many it was for, without those excluded; None: nobody knows
    (Pub/Sub). `processes`: how many processes those are in, of which one with more
    than 10,000 members counts for each 10,000; by Pub/Sub, how many were subscribed;
    None on a Cluster with classic Pub/Sub, which doesn't say. `full`: how many of the
    processes had no room for it; it is lost to their members.
    """

    members: int | None
    processes: int | None
    full: int
