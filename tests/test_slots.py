"""Slots move from node to node under load: nothing is lost, doubled or overtaken."""

from __future__ import annotations

import asyncio
import itertools
import operator
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from clusters import Cluster, slot_of
from layers import end, nothing, opened, soon
from polling import eventually

from channels_redis_fast.core import RedisChannelLayer

Layers = tuple[RedisChannelLayer, RedisChannelLayer]
Send = Callable[[RedisChannelLayer, dict[str, int]], Awaitable[object]]

SENDERS = 3


@pytest.fixture
async def layers(cluster: Cluster) -> AsyncIterator[Layers]:
    """Two layers on the shared Cluster, which is whole again after each test."""
    # What a full channel refuses is no loss; here nothing is refused.
    host, options = cluster.host, {"capacity": 100_000}
    async with opened(host, **options) as one, opened(host, **options) as other:
        yield one, other


class Traffic:
    """Senders that number their messages, and a reader of each channel."""

    def __init__(self, layers: Layers, send: Send, channels: list[str]) -> None:
        self._reader, self._sender = layers
        self._send = send
        self._sending = True
        self.accepted: list[tuple[int, int]] = []
        self.got: list[list[tuple[int, int]]] = [[] for _ in channels]
        self._senders = [asyncio.create_task(self._write(n)) for n in range(SENDERS)]
        self._readers = [
            asyncio.create_task(self._read(channel, got))
            for channel, got in zip(channels, self.got, strict=True)
        ]

    async def passes(self, count: int) -> None:
        """Waits until so many more have arrived everywhere."""
        wanted = [len(got) + count for got in self.got]
        await eventually(
            lambda: all(map(operator.ge, map(len, self.got), wanted)),
            f"{count} messages",
        )

    async def end(self) -> None:
        """Stop sending, and receive what is left."""
        self._sending = False
        await asyncio.gather(*self._senders)
        await eventually(
            lambda: all(len(got) >= len(self.accepted) for got in self.got),
            "the rest of the messages",
        )
        await end(*self._readers)

    def check(self) -> None:
        """All that was accepted has arrived, once, and in each sender's order."""
        for got in self.got:
            assert Counter(got) == Counter(self.accepted)
            for sender in range(SENDERS):
                numbers = [n for who, n in got if who == sender]
                assert numbers == sorted(numbers)

    async def _write(self, sender: int) -> None:
        for n in itertools.count():
            if not self._sending:
                return
            await self._send(self._sender, {"sender": sender, "n": n})
            self.accepted.append((sender, n))
            await asyncio.sleep(0.002)

    async def _read(self, channel: str, got: list[tuple[int, int]]) -> None:
        while True:
            message = await self._reader.receive(channel)
            got.append((message["sender"], message["n"]))


def there_and_back(cluster: Cluster, key: str) -> Iterator[str]:
    """The steps of moving a key's slot to another node, and of moving it back."""
    source = cluster.node_of(key)
    target = next(node for node in cluster.primaries if node is not source)
    yield from cluster.migration(slot_of(key), target)
    yield from cluster.migration(slot_of(key), source)


def process_key(channel: str) -> str:
    """The key of a process channel."""
    return f"asgi{channel.split('!')[0]}!"


@pytest.mark.parametrize("moves", ["process key", "normal channel", "group", "members"])
async def test_a_slot_moves_under_load(
    layers: Layers, cluster: Cluster, moves: str
) -> None:
    one, _ = layers
    names = [await one.new_channel() for _ in range(5)]
    for name in names:
        await one.group_add("room", name)

    async def to_group(layer: RedisChannelLayer, message: dict[str, int]) -> None:
        await layer.group_send("room", message)

    async def to_channel(layer: RedisChannelLayer, message: dict[str, int]) -> None:
        await layer.send(channels[0], message)

    key, send, channels = {
        "process key": (process_key(names[0]), to_channel, names[:1]),
        "normal channel": ("asgiworker", to_channel, ["worker"]),
        "group": ("asgi:group:room", to_group, names),
        "members": (process_key(names[0]), to_group, names),
    }[moves]
    traffic = Traffic(layers, send, channels)
    steps = there_and_back(cluster, key)
    while await asyncio.to_thread(next, steps, None):
        await traffic.passes(30)
    await traffic.end()
    traffic.check()


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
