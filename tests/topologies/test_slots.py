"""Slots move from node to node with a backlog: nothing is lost or overtaken.

Under load: see test_fault_table.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from channels_redis_fast.core import RedisChannelLayer
from support.clusters import Cluster, slot_of
from support.layers import nothing, opened, soon

Layers = tuple[RedisChannelLayer, RedisChannelLayer]


@pytest.fixture
async def layers(cluster: Cluster) -> AsyncIterator[Layers]:
    """Two layers on the shared Cluster, which is whole again after each test."""
    # What a full channel refuses is no loss; here nothing is refused.
    host, options = cluster.host, {"capacity": 100_000}
    async with opened(host, **options) as one, opened(host, **options) as other:
        yield one, other


def there_and_back(cluster: Cluster, key: str) -> Iterator[str]:
    """The steps of moving a key's slot to another node, and of moving it back."""
    source = cluster.node_of(key)
    target = next(node for node in cluster.primaries if node is not source)
    yield from cluster.migration(slot_of(key), target)
    yield from cluster.migration(slot_of(key), source)


def process_key(channel: str) -> str:
    """The key of a process channel."""
    return f"asgi{channel.split('!')[0]}!"


@pytest.mark.parametrize("kind", ["process key", "normal channel"])
async def test_a_backlog_moves(layers: Layers, cluster: Cluster, kind: str) -> None:
    """Messages that nobody reads go along, and those sent meanwhile come after."""
    one, other = layers
    name = await one.new_channel()
    channel, key = (name, process_key(name))
    if kind == "normal channel":
        channel, key = "worker", "asgiworker"
    sent = 0
    for _ in there_and_back(cluster, key):
        for _ in range(10):
            await other.send(channel, {"n": sent})
            sent += 1
    received = [(await soon(one, channel))["n"] for _ in range(sent)]
    assert received == list(range(sent))
    assert await nothing(one, channel)
