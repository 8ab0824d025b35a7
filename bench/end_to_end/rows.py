"""What is measured, and what it should show."""

from __future__ import annotations

from dataclasses import dataclass

LAYERS = ("core", "pubsub", "channels_redis-core", "channels_redis-pubsub")
KINDS = ("plain", "mixin", "broadcast")


def names(layers: tuple[str, ...], kinds: tuple[str, ...] = KINDS) -> tuple[str, ...]:
    """A layer with each kind of consumer."""
    return tuple(f"{layer} {kind}" for layer in layers for kind in kinds)


BARE = "bare plain"  # no layer, no consumer
ALL = names(LAYERS)


@dataclass(frozen=True)
class Row:
    """Some clients in groups behind one server process."""

    name: str
    title: str
    clients: int
    contenders: tuple[str, ...]
    groups: int = 1
    size: int = 100  # characters
    server: str = "uvicorn"
    measures: str = "deliveries"  # or "answers", "memory"


ROWS = (
    Row("group-1000", "1,000 clients in one group", 1000, (*ALL, BARE)),
    Row("group-100", "100 clients in one group", 100, (*ALL, BARE)),
    Row("groups-of-10", "1,000 clients in groups of 10", 1000, ALL, groups=100),
    Row("group-1000-4k", "1,000 clients, texts of 4 KiB", 1000, ALL, size=4096),
    Row("group-100-4k", "100 clients, texts of 4 KiB", 100, ALL, size=4096),
    Row(
        *("daphne", "300 clients in one group, daphne", 300),
        (*names(("core",)), BARE),
        server="daphne",
    ),
    Row(
        *("granian", "300 clients in one group, granian", 300),
        names(("core",)),
        server="granian",
    ),
    Row(
        *("answers", "100 clients that talk and are answered", 100),
        names(LAYERS, KINDS[:2]),
        measures="answers",
    ),
    Row(
        *("idle-2000", "2,000 clients in 200 groups that wait", 2000),
        names(LAYERS, KINDS[:2]),
        groups=200,
        measures="memory",
    ),
    Row(
        *("idle-10000", "10,000 clients in 1,000 groups that wait", 10_000),
        names(("core", "pubsub"), KINDS[:2]),
        groups=1000,
        measures="memory",
    ),
)


@dataclass(frozen=True)
class Target:
    """One figure of `ours` is at most so many times that of `other`."""

    row: str
    ours: str
    other: str
    most: float
    key: str = "cpu"  # of the server for each delivery; at half of its highest rate


TARGETS = (
    Target("group-1000", "core mixin", "core plain", 1 / 8),
    Target("group-1000", "core broadcast", "core plain", 1 / 9),
    Target("group-1000", "pubsub mixin", "pubsub plain", 1 / 8),
    Target("group-1000", "pubsub broadcast", "pubsub plain", 1 / 9),
    Target("group-1000", "core mixin", "core plain", 1 / 6, "half_cpu"),
    Target("group-1000", "core broadcast", "core plain", 1 / 7, "half_cpu"),
    Target("group-100", "core mixin", "core plain", 1 / 5),
    Target("group-100", "core broadcast", "core plain", 1 / 7),
    Target("group-100-4k", "core mixin", "core plain", 1 / 3),
    Target("group-100-4k", "core broadcast", "core plain", 1 / 5),
    Target("daphne", "core mixin", "core plain", 1 / 4.5),
    Target("granian", "core mixin", "core plain", 1 / 3.5),
    Target("group-1000", "core broadcast", BARE, 1.5),
    Target("group-1000", "core mixin", "channels_redis-core plain", 1 / 12),
    Target("answers", "core plain", "core mixin", 1 / 3, "answers"),
    Target("idle-2000", "core mixin", "core plain", 1, "memory"),
    Target("idle-10000", "core mixin", "core plain", 1, "memory"),
)
