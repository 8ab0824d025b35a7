"""Every fault that the layers are to survive: what it needs, does and may cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from support import ending_histories, inflicting, refusals
from support.accounting import NORMAL_LINE
from support.inflicting import CAPACITY, LONG, PATIENCE, SHORT, Inflict
from support.ledger import LEFT_OUT, Promise
from support.refusals import Refusal

# What an outage may cost each process, and the normal channel (messages).
NOTHING = (0, 0)
BATCH = (CAPACITY + 1, 1)
DATA = (2 * CAPACITY + 1, CAPACITY + 1)  # the batch, and what lay in Redis

FULL = frozenset({"ChannelFull", LEFT_OUT})
UNREACHED = frozenset({"ConnectionError"})

# The events of the first table of docs/failures.md.
GONE = "Redis restarts, fails over, or the network is cut"
UNKNOWN = "the connection breaks after a send was written"
ON_THEIR_WAY = "the connection breaks while messages are on their way to a reader"
SWAPPED = "a Cluster's node and its replica swap (`CLUSTER FAILOVER`)"
EMPTY = "Redis lost its data"
REWOUND = "a replica takes over that had not been told the latest"
UNREADABLE = "a message that can't be read (malformed, wrong key, too old, too large)"
SLOW = "Redis is slow, forgets its scripts, or moves a slot to another node"
OUT_OF_MEMORY = "Redis has no memory left (`noeviction`)"
UNABLE = (
    "Redis can't now: it is loading, misses replicas (`NOREPLICAS`) or space for its "
    "snapshots (`MISCONF`), or runs a script (`BUSY`)"
)
DEMOTED = "a replica answers after a failover"

# Those of the table of docs/replay.md.
REPLAYED = (
    "connections are lost, again and again; answers are slow; a process or an event "
    "loop stands still"
)
TOLD = (
    "more was missed than is kept, or it is older than `ttl`; a key was evicted; "
    "FLUSHDB; Redis lost its data, was restarted or failed over; `group_forget`"
)


@dataclass(frozen=True)
class Fault:
    """One way to fail, and what one outage may cost each layer.

    `promise` is where the docs say so. What is published (Pub/Sub's direct and
    group messages) has no limit during an outage, and must not be lost outside.
    """

    name: str
    scene: str
    inflict: Inflict
    promise: str
    core: tuple[int, int] = NOTHING
    pubsub: tuple[int, int] = NOTHING
    refusals: frozenset[str] = frozenset()
    times: int = 2  # in the test-suite
    often: int = 10  # by `make faults`
    options: dict[str, Any] = field(default_factory=dict)
    keeps_order: bool = True  # also of what is published
    empties: bool = False  # Redis: also the groups
    rewinds: bool = False  # Redis to what a replica knew
    echoes: bool = False  # what was published before may be published again
    # How many gaps it may tell those who follow a group; None: no such row.
    gaps: int | None = None

    def promises(self, layer: str, lines: Iterable[str]) -> Promise:
        """What a layer of that kind may lose on these lines."""
        process, normal = getattr(self, layer)
        exempt = frozenset[str]()
        if layer == "pubsub":
            process, exempt = 0, frozenset({"direct", "group"})
        elif self.empties:
            # Groups are empty until the processes of their members are back.
            exempt = frozenset({"group"})
        limits = {one: normal if one == NORMAL_LINE else process for one in lines}
        kept = [line for line in limits if layer == "core" or line == NORMAL_LINE]
        return Promise(
            limits,
            CAPACITY * len(kept) if self.rewinds else 0,
            exempt,
            exempt if self.echoes else frozenset(),
            self.refusals | FULL,
            self.keeps_order or layer == "core",
        )

    def promises_followers(self) -> Promise:
        """What those who follow a group may miss: what a gap tells, and no more."""
        refusals, gaps = self.refusals | FULL, self.gaps or 0
        exempt = frozenset({"group"})
        return Promise({}, exempt=exempt, refusals=refusals, gaps=gaps)


def single(name: str, inflict: Inflict, promise: str, **details: Any) -> Fault:
    """A fault of one server."""
    return Fault(name, "single", inflict, promise, **details)


def proxied(name: str, inflict: Inflict, promise: str, **details: Any) -> Fault:
    """A fault of the network."""
    return Fault(name, "proxied", inflict, promise, **details)


def refuses(
    name: str, refusal: Refusal, promise: str, error: str = "ResponseError"
) -> Fault:
    """A fault of one server that refuses for a while, which costs nothing.

    A call whose time is over while an attempt is under way raises that nobody answered.
    """
    return single(
        name,
        inflicting.refusing(refusal, error),
        promise,
        refusals=UNREACHED | {error},
        times=1,
        often=5,
        options={"command_timeout": PATIENCE},
    )


def breaks(cost: tuple[int, int] = BATCH) -> dict[str, Any]:
    """Of what breaks everybody's connections."""
    return {"core": cost, "pubsub": cost, "refusals": UNREACHED}


READERS = {"core": BATCH, "pubsub": BATCH}
SENDERS = {"refusals": UNREACHED}
BYTES = {"times": 10, "often": 300}
SEALED = {"symmetric_encryption_keys": ["a key"], "encryption": "aes-gcm"}

FAULTS = [
    single(
        "kill -9, comes back empty",
        inflicting.killed_empty,
        EMPTY,
        **breaks(DATA),
        empties=True,
        gaps=1,
    ),
    Fault(
        "kill -9, comes back with its data",
        "durable",
        inflicting.killed_durable,
        GONE,
        **breaks(),
        gaps=1,
    ),
    single("SIGSTOP, SIGCONT soon", inflicting.stopped_short, SLOW),
    single(
        "SIGSTOP, SIGCONT late",
        inflicting.stopped_long,
        GONE,
        times=1,
        **breaks(),
        gaps=0,
    ),
    single("DEBUG SLEEP, short", inflicting.asleep(SHORT), SLOW),
    single("DEBUG SLEEP, long", inflicting.asleep(LONG), GONE, times=1, **breaks()),
    single(
        "CLIENT KILL of all",
        inflicting.clients_killed("all"),
        GONE,
        times=5,
        gaps=0,
        **breaks(),
    ),
    single(
        "CLIENT KILL of those that read",
        inflicting.clients_killed("readers"),
        ON_THEIR_WAY,
        times=5,
        gaps=0,
        **READERS,
    ),
    single(
        "CLIENT KILL of the others",
        inflicting.clients_killed("others"),
        UNKNOWN,
        times=5,
        gaps=0,
        **SENDERS,
    ),
    single("SCRIPT FLUSH", inflicting.scripts_flushed, SLOW, times=5, often=100),
    single(
        "output buffer over its limit",
        inflicting.buffers_full,
        GONE,
        times=1,
        **READERS,
    ),
    single(
        "full memory, noeviction",
        inflicting.memory_full,
        OUT_OF_MEMORY,
        refusals=frozenset({"OutOfMemoryError"}),
    ),
    refuses("too few replicas, NOREPLICAS", refusals.no_replica, UNABLE),
    refuses("no snapshots, MISCONF", refusals.no_disk, UNABLE),
    refuses("an endless script, BUSY", refusals.no_time, UNABLE),
    refuses("demoted, READONLY", refusals.no_primary, DEMOTED, "ReadOnlyError"),
    proxied("cut, closed", inflicting.cut(reset=False), GONE, times=5, **breaks()),
    proxied(
        "cut, reset", inflicting.cut(reset=True), GONE, times=5, **breaks(), gaps=0
    ),
    proxied(
        "cut with whole batches on their way",
        inflicting.batches_cut,
        ON_THEIR_WAY,
        **READERS,
    ),
    proxied(
        "reply to a reader cut at each byte",
        inflicting.replies_to_readers_cut,
        ON_THEIR_WAY,
        **READERS,
        **BYTES,
        gaps=0,
    ),
    proxied(
        "request of a reader cut at each byte",
        inflicting.requests_of_readers_cut,
        ON_THEIR_WAY,
        **READERS,
        **BYTES,
    ),
    proxied(
        "reply to a sender cut at each byte",
        inflicting.replies_to_senders_cut,
        UNKNOWN,
        **SENDERS,
        **BYTES,
        gaps=0,
    ),
    proxied(
        "request of a sender cut at each byte",
        inflicting.requests_of_senders_cut,
        UNKNOWN,
        **SENDERS,
        **BYTES,
        gaps=0,
    ),
    proxied("everything delayed", inflicting.delayed, SLOW, times=1),
    proxied("split into single bytes", inflicting.split, SLOW),
    proxied(
        "half-closed, to the clients",
        inflicting.half_closed("client"),
        GONE,
        **breaks(),
    ),
    proxied(
        "half-closed, to the server", inflicting.half_closed("server"), GONE, **breaks()
    ),
    proxied("no answer to readers, short", inflicting.readers_unanswered_short, SLOW),
    proxied(
        "no answer to readers",
        inflicting.readers_unanswered,
        ON_THEIR_WAY,
        times=1,
        **READERS,
        gaps=0,
    ),
    proxied("no answer to senders", inflicting.senders_unanswered, UNKNOWN, **SENDERS),
    proxied(
        "reply corrupted at each byte",
        inflicting.replies_corrupted,
        UNREADABLE,
        options=SEALED,
        **READERS,
        **BYTES,
    ),
    Fault(
        "Sentinel failover, primary killed",
        "sentinels",
        inflicting.primary_killed,
        REWOUND,
        rewinds=True,
        **breaks(DATA) | {"refusals": UNREACHED | {"MasterNotFoundError"}},
        times=1,
        often=5,
        gaps=1,
    ),
    Fault(
        "Sentinel failover, primary demoted",
        "sentinels",
        inflicting.primary_demoted,
        REWOUND,
        rewinds=True,
        **breaks(DATA) | {"refusals": UNREACHED | {"ReadOnlyError"}},
        times=1,
        often=5,
        gaps=1,
    ),
    Fault(
        "Cluster failover, primary killed",
        "cluster",
        inflicting.node_killed,
        REWOUND,
        rewinds=True,
        **breaks(DATA) | {"refusals": UNREACHED | {"ClusterDownError"}},
        times=1,
        often=9,
        keeps_order=False,
        gaps=1,
    ),
    Fault(
        "Cluster failover, roles swapped",
        "cluster",
        inflicting.nodes_swapped,
        SWAPPED,
        # Nodes may name each other for longer than a call may take.
        **{**breaks(), "refusals": UNREACHED | {"MovedError"}},
        times=2,
        often=9,
        keeps_order=False,
        echoes=True,
        gaps=1,
    ),
    Fault(
        "slots moved there and back",
        "cluster",
        inflicting.slots_moved,
        SLOW,
        times=1,
        often=5,
    ),
]

# Those that are inflicted on followers of a group with a history, too.
FOLLOWED = [
    *(fault for fault in FAULTS if fault.gaps is not None),
    single(
        "history and position evicted",
        ending_histories.histories_evicted,
        TOLD,
        often=100,
        gaps=1,
    ),
    Fault(
        "the group's slot moved there and back",
        "cluster",
        ending_histories.slot_moved,
        TOLD,
        # Redis serves no command with two keys while only one of them has moved.
        refusals=UNREACHED | {"TryAgainError", "MovedError"},
        times=1,
        often=5,
        gaps=1,
    ),
    Fault(
        "Sentinel failover, replica far behind",
        "sentinels",
        ending_histories.laggard_promoted,
        TOLD,
        refusals=UNREACHED | {"MasterNotFoundError", "ReadOnlyError"},
        times=1,
        often=5,
        gaps=1,
    ),
]
