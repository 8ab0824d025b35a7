"""Pub/Sub layers for one test, and what servers say about their subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from channels_redis_fast.pubsub import RedisPubSubChannelLayer
from support.clusters import Cluster
from support.layers import end
from support.servers import Server

TOLD = {"on_disconnect": "gone", "on_reconnect": "back"}
GONE, BACK = {"type": "gone"}, {"type": "back"}
GROUP = "asgi__group__room"


@asynccontextmanager
async def published(
    *hosts: Any, **options: Any
) -> AsyncIterator[RedisPubSubChannelLayer]:
    """A Pub/Sub layer on these hosts, whose connections are closed at the end."""
    layer = RedisPubSubChannelLayer(hosts=list(hosts), **options)
    try:
        yield layer
    finally:
        await layer.close_pools()


def subscribers(server: Server, name: str) -> int:
    """How many connections are subscribed to a name."""
    return int(server.client().pubsub_numsub(name)[0][1])


def subscribed(server: Server) -> set[str]:
    """All names that somebody is subscribed to."""
    return {name.decode() for name in server.client().pubsub_channels()}


def sharded(server: Server) -> set[str]:
    """The names that are subscribed there, sharded."""
    command = "PUBSUB", "SHARDCHANNELS"
    return {name.decode() for name in server.client().execute_command(*command)}


def everywhere(ask: Callable[[Server], set[str]], cluster: Cluster) -> set[str]:
    """The names of all nodes that run."""
    return {name for node in cluster.nodes if node.running for name in ask(node)}


class Consumers:
    """Receive on some channels and keep what came."""

    def __init__(self, layer: RedisPubSubChannelLayer, names: list[str]) -> None:
        self.got: dict[str, list[Any]] = {name: [] for name in names}
        self._tasks = [asyncio.create_task(self._read(layer, name)) for name in names]

    async def _read(self, layer: RedisPubSubChannelLayer, name: str) -> None:
        while True:
            self.got[name].append(await layer.receive(name))

    def all_got(self, *messages: Any) -> bool:
        """Whether each got all of these."""
        return all(m in got for got in self.got.values() for m in messages)

    def told(self) -> set[tuple[str, ...]]:
        """The types of the layer's own messages, in order, of all consumers."""
        types = [[m.get("type") for m in got] for got in self.got.values()]
        return {tuple(t for t in one if t in ("gone", "back")) for one in types}

    async def aclose(self) -> None:
        """Ends all."""
        await end(*self._tasks)
