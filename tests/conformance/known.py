"""The layers that the report compares, and what they are known to break."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from support.clusters import Cluster
from support.servers import Server

from .subjects import Subject

OURS = {
    "core": "channels_redis_fast.core.RedisChannelLayer",
    "Pub/Sub": "channels_redis_fast.pubsub.RedisPubSubChannelLayer",
}
THEIRS = {
    "channels_redis core": "channels_redis.core.RedisChannelLayer",
    "channels_redis Pub/Sub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}
IN_MEMORY = Subject(
    "Channels in-memory",
    "channels.layers.InMemoryChannelLayer",
    is_local=True,
    is_rival=True,
)

# The points that our layers break, and why; nobody may add one without a word.
DEVIATIONS: dict[str, dict[str, str]] = {
    "core": {},
    "Pub/Sub": {
        "a mark in new channels": "the wire format of channels_redis has no such names",
        "any channel joins": "a membership is a subscription of the channel's process",
        "flush for all clients": "what waits in other processes is out of reach",
    },
}


TOPOLOGIES = ("one server", "shards", "Cluster")


def start(servers: ExitStack, topology: str) -> list[Any]:
    """Start the servers of a topology; their setting of `hosts`."""
    if topology == "Cluster":
        return [servers.enter_context(Cluster(replicas=False)).host]
    count = 1 if topology == "one server" else 3
    return [servers.enter_context(Server()).url for _ in range(count)]


def ours(layer: str, topology: str, hosts: list[Any]) -> Subject:
    """One of our layers; members stay no longer than the specification says."""
    config = {"hosts": hosts, "refresh_groups": False}
    return Subject(f"{layer}, {topology}", OURS[layer], config)


def everybody(hosts: dict[str, list[Any]]) -> list[Subject]:
    """All layers on all topologies that they know, ours first."""
    return [
        *(ours(layer, *each) for layer in OURS for each in hosts.items()),
        *(
            Subject(
                f"{name}, {topology}", path, {"hosts": hosts[topology]}, is_rival=True
            )
            for name, path in THEIRS.items()
            for topology in ("one server", "shards")
        ),
        IN_MEMORY,
    ]


def deviations(subject: Subject) -> dict[str, str]:
    """The points that a layer is known to break."""
    return DEVIATIONS.get(subject.name.split(",")[0], {})
