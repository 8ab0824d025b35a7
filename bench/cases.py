"""Every workload that is measured, with whom, and where sender and receivers are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from contenders import CONTENDERS, TEXT
from workloads import (
    Calls,
    Group,
    GroupSenders,
    HalfLoad,
    Joins,
    PingPong,
    Readers,
    Rest,
    Senders,
)

ONE, TWO = "one", "two"


@dataclass(frozen=True)
class Case:
    """One table of the report."""

    name: str
    title: str
    workload: Any
    contenders: tuple[str, ...]
    receivers: int = 1  # processes
    is_one_process: bool = False  # of sender and receiver
    size: int = len(TEXT)  # of the message's text
    encrypted: bool = False
    capacity: int | None = None  # None: room for all messages
    unit: str = "messages/s"
    # Who may lose some: Redis ends a subscriber that has 32 MiB unread.
    may_lose: tuple[str, ...] = ()


REDIS = (
    *("core", "core-unconfirmed", "pubsub", "pubsub-unconfirmed"),
    *("channels_redis-core", "channels_redis-pubsub"),
)
LIMITS = ("limit-core", "limit-pubsub")
ALL = (*REDIS, "channels_nats", "in-memory", *LIMITS, "limit-queue")
# Where there is less to learn.
FEW = tuple(name for name in ALL if name != "in-memory")
SECRET = (
    *("core", "core-aes-gcm", "pubsub", "pubsub-aes-gcm"),
    *("channels_redis-core", "channels_redis-pubsub"),
)
BLOCKING = (
    *("core", "core-sync", "pubsub", "pubsub-sync"),
    *("channels_redis-core", "channels_redis-pubsub", "channels_nats"),
    *("limit-core-sync", "limit-pubsub-sync"),
)
QUEUE = (
    *("core", "core-prefetch", "core-both", "pubsub", "pubsub-both"),
    *("channels_redis-core", "channels_redis-pubsub", "channels_nats", "limit-core"),
)
WAITING = (
    *("core", "pubsub", "channels_redis-core", "channels_redis-pubsub"),
    *("channels_nats", "limit-core", "limit-pubsub", "limit-queue"),
)
HISTORY = ("core", "core-history", "pubsub", "pubsub-history")
# channels_valkey is channels_redis with another client: once is enough.
DEFAULT = ("core", "channels_redis-core", "channels_valkey-core")
KIB = 1024


def _cases() -> Iterator[Case]:
    for place in (ONE, TWO):
        yield from _placed(place)
    yield Case(
        "group-1000-in-four",
        "a group of 1,000 in four processes, the sender in a fifth",
        *(Group(1_000), _remote(FEW)),
        receivers=4,
        unit="deliveries/s",
    )
    yield Case(
        "readers-4",
        "20 senders to a normal channel that four processes read",
        *(Readers(), QUEUE),
        receivers=4,
    )
    yield Case(
        "group-senders-20",
        "20 senders to a group of one, with a history and without, two processes",
        *(GroupSenders(20), HISTORY),
    )
    yield Case(
        "joins",
        "joining a group as its first member, and leaving it",
        *(Joins(), HISTORY),
        is_one_process=True,
        unit="joins/s",
    )
    yield Case(
        "half-load",
        "20 senders at half the rate they reach: how long a message takes",
        *(HalfLoad(20), _remote(FEW)),
    )
    yield Case(
        "sync",
        "calls of group_send from synchronous code (async_to_sync, or layer.sync)",
        *(Calls(1, least=20), BLOCKING),
        unit="calls/s",
    )
    yield Case(
        "idle",
        "1,000 receivers that wait",
        *(Rest(1_000, 2.0), WAITING),
        is_one_process=True,
        unit="",
    )


def _placed(place: str) -> Iterator[Case]:
    """What is measured in one process, and with sender and receivers in two."""
    is_one = place == ONE
    where = "one process" if is_one else "two processes"

    def case(
        name: str, title: str, workload: Any, names: tuple[str, ...] = ALL, **more: Any
    ) -> Case:
        names = names if is_one else _remote(names)
        title = f"{title}, {where}"
        return Case(
            f"{name}-in-{place}", title, workload, names, is_one_process=is_one, **more
        )

    yield case("ping-pong", "there and back", PingPong(), unit="round trips/s")
    for count in (20,) if is_one else (1, 20, 200):
        plural = "s" * (count > 1)
        yield case(f"senders-{count}", f"{count} sender{plural} to one", Senders(count))
    if is_one:
        yield case(
            "senders-20-default",
            "20 senders to one, capacity 100",
            *(Senders(20), DEFAULT),
            capacity=100,
        )
    for members in (100, 1_000) if is_one else (100, 1_000, 10_000):
        yield case(
            f"group-{members}",
            f"a group of {members:,}",
            Group(members),
            unit="deliveries/s",
        )
    if is_one:
        return  # what is left is no other there
    yield case(
        "encrypted-20", "20 senders, encrypted", Senders(20), SECRET, encrypted=True
    )
    for size in (64, 900):
        yield case(
            f"size-{size}",
            f"20 senders, messages of {size} KiB",
            Senders(20, least=20),
            size=size * KIB,
            may_lose=("pubsub", "pubsub-unconfirmed") if size == 900 else (),
        )


def _remote(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those that need not be in one process."""
    return tuple(name for name in names if not CONTENDERS[name].one_process)


CASES = {case.name: case for case in _cases()}
