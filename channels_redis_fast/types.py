"""The values that the layers' methods take and return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypedDict


class Durations(TypedDict):
    """How long something took (seconds), by buckets whose bounds never change."""

    bounds: list[float]  # the upper ones, rising; one more bucket is for all beyond
    counts: list[int]  # of each bucket alone
    sum: float


class HostStats(TypedDict):
    """What a layer knows of an entry of `hosts`, in this process."""

    # "refusing": it answers, but loads, misses replicas, ...; "unused": so far.
    state: Literal["up", "down", "refusing", "unused"]
    reconnects: int  # of event loops: connections that came after one was missed
    unanswered: int  # commands of event loops
    oldest_unanswered: float  # seconds since the first of these was given; 0.0: none
    roundtrips: Durations  # of event loops: one a second of each connection in use


class Stats(TypedDict):
    """What a layer did in this process since it was made, or forked, and has now."""

    sent: dict[str, int]  # messages that Redis took, by "channel" and "group"
    full: dict[str, int]  # "channel": refused sends; "group": processes that missed one
    received: int  # messages that came for channels of this process, or normal ones
    delivered: int  # to how many channels: one message may be for many
    dropped: dict[str, int]  # messages, by reason: `layer.counters`
    mailboxes: int  # channels of this process
    waiting: int  # messages in these
    memberships: int  # of these, in groups
    subscriptions: int  # of Pub/Sub, to names at Redis
    processes: int  # that live, as the last heartbeat was told; 0: it wasn't
    hosts: dict[str, HostStats]  # by the host in words, without credentials


# A `since` before all that is kept.
BEGINNING = "beginning"

# The key of a message's entry that says where it is in the history of its group.
POSITION = "__asgi_position__"


def position_of(message: Mapping[str, Any]) -> str | None:
    """The position of a message that came by a group with a history; None for others.

    It is a `since` for `group_join` and the like, and an id for server-sent events.
    """
    value = message.get(POSITION)
    return value if isinstance(value, str) else None


class History(NamedTuple):
    """What is kept of a group's messages: a value of the option `history`.

    The last `size` messages (100 messages: 100), until `ttl` seconds after the newest
    of them. Positions are known for `position_ttl` seconds after it.
    """

    size: int
    ttl: int
    position_ttl: int = 86_400


class Recovery(NamedTuple):
    """What `group_join` found: whether all that came after `since` is replayed.

    `position` is where the channel is then, and `replayed` how many messages (0 or
    more) it gets before anything newer. Without a `since` nothing is, and all is well.
    """

    position: str
    recovered: bool
    replayed: int


class Page(NamedTuple):
    """What `group_history` found: messages, and where to go on from.

    `recovered`: nothing is missing between what was asked for and these.
    """

    messages: list[dict[str, Any]]
    position: str
    recovered: bool


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
