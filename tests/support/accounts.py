"""Messages on their way, and what is known of each: the state of the model."""

from __future__ import annotations

from dataclasses import dataclass, field

# What came of a message, or may have come of it.
RECEIVED = "it was received before"
UNDER_WAY = "its outcome is not known yet"
UNSURE = "its sender got ConnectionError"
EXPIRED = "expired"
FLUSHED = "flushed"
FULL = "its process was full when a group was sent to"
DROPPED = "the oldest of a mailbox that nobody read"
CUT = "on its way when a connection broke"
MISSED = "published while a process was disconnected"
MEMBERSHIP = "its channel may have been in the group"
ENDED = "its channel had ended"


@dataclass(eq=False)
class Risk:
    """A connection that broke; so many messages may have gone with it."""

    left: float
    reason: str


@dataclass(eq=False)
class Key:
    """What is stored together, and counted by capacity: a process's, or a channel's."""

    name: str
    capacity: float
    shards: int = 1  # that share it
    is_normal: bool = False
    read_ahead: bool = False  # its process began to read: some may be there already
    readers: int = 0  # who may have taken a message that the model wasn't told of
    stored: list[Sent] = field(default_factory=list)  # not known to be gone from it
    notices: list[int] = field(default_factory=list)  # the same: of which calls

    def most(self, but: Sent) -> int:
        """How many others may be stored, at most."""
        others = sum(s is not but and not s.is_old for s in self.stored)
        return others + len(self.notices)

    def least(self, but: Sent) -> int:
        """How many others are stored, at least, on each shard."""
        if self.read_ahead:
            return 0
        sure = sum(s is not but and s.is_sure and not s.is_old for s in self.stored)
        elsewhere = 0 if self.shards == 1 else (self.shards - 1) * int(self.capacity)
        return sure - self.readers - elsewhere


@dataclass(eq=False)
class Sent:
    """One message on its way through one key."""

    number: int
    key: Key
    # Messages of one sender keep the order of its calls; in a call, that of each lane.
    sender: object
    call: int
    lane: str
    is_for_group: bool
    expiry: float
    doubt: str | None = UNDER_WAY
    age: float = 0.0
    risks: list[Risk] = field(default_factory=list)
    is_paid: bool = False  # a risk was taken for it: its copies go together
    copies: list[Copy] = field(default_factory=list)

    @property
    def is_old(self) -> bool:
        """Whether it has expired."""
        return self.age > self.expiry

    @property
    def is_sure(self) -> bool:
        """Whether it has to be there."""
        if self.doubt or self.risks:
            return False
        return any(copy.doubt is None for copy in self.copies)

    def is_before(self, other: Sent) -> bool:
        """Whether it has to arrive earlier, if both do."""
        if self.sender != other.sender:
            return False
        if self.call == other.call:
            return self.lane == other.lane and self.number < other.number
        return self.call < other.call


@dataclass(eq=False)
class Copy:
    """A message on its way to one channel."""

    sent: Sent
    channel: Channel
    doubt: str | None = None

    @property
    def is_sure(self) -> bool:
        """Whether it has to come."""
        return not self.doubt and self.sent.is_sure and not self.sent.is_old


@dataclass(eq=False)
class Join:
    """A channel that is being added to a group."""

    loop: object  # whose calls are written in the order in which they began
    copies: list[Copy] = field(default_factory=list)  # of what began there since then


@dataclass(eq=False)
class Channel:
    """A channel, and what should come to it."""

    name: str
    key: Key
    owner: int | None  # the layer that made it; None: a normal channel, for all
    capacity: int
    in_order: bool = True  # across senders and lanes
    pending: list[Copy] = field(default_factory=list)
    history: dict[int, str] = field(default_factory=dict)  # what came of the others
    # How long ago (seconds) its name was forgotten, at least and at most.
    forgotten: tuple[float, float] | None = None
    is_live: bool = True

    @property
    def has_next(self) -> bool:
        """Whether `receive` has to return something."""
        return any(copy.is_sure for copy in self.pending)

    def overflow(self) -> None:
        """More may wait than a mailbox holds: the oldest may be dropped."""
        excess = len(self.pending) - self.capacity
        if self.owner is None or excess <= 0:
            return
        last = self.pending[excess - 1].sent.call
        for copy in self.pending:
            if self.in_order:  # who came first of one call is not known
                is_old = copy.sent.call <= last
            else:
                earlier = (one.sent.is_before(copy.sent) for one in self.pending)
                is_old = sum(earlier) < excess
            if is_old:
                copy.doubt = copy.doubt or DROPPED
