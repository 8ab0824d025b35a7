"""Pub/Sub layers for one test, and what servers say about their subscriptions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from servers import Server

from channels_redis_fast.pubsub import RedisPubSubChannelLayer


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
