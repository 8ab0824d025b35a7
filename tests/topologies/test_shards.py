"""One layer over several hosts: databases of one server, so that keys can be seen."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from channels_redis_fast.core import RedisChannelLayer
from support.layers import opened, soon
from support.servers import Server, kept

SHARDS = 4


@pytest.fixture
def hosts(valkey: Server) -> list[str]:
    return [f"{valkey.url}/{db}" for db in range(SHARDS)]


@pytest.fixture
async def layer(hosts: list[str]) -> AsyncIterator[RedisChannelLayer]:
    async with opened(*hosts) as layer:
        yield layer


@pytest.fixture
async def other(hosts: list[str]) -> AsyncIterator[RedisChannelLayer]:
    async with opened(*hosts) as layer:
        yield layer


def _shards_of(valkey: Server, key: str) -> list[int]:
    return [db for db in range(SHARDS) if valkey.client(db=db).exists(key)]


async def test_direct_messages_arrive(
    layer: RedisChannelLayer, other: RedisChannelLayer
) -> None:
    # A prefix is a process key: these are on different shards.
    names = [await layer.new_channel(f"prefix{i}") for i in range(20)]
    waiting = [asyncio.create_task(soon(layer, name)) for name in names[::2]]
    for name in names:
        await other.send(name, {"to": name})
    received = await asyncio.gather(*waiting)
    received += [await soon(layer, name) for name in names[1::2]]
    assert [message["to"] for message in received] == names[::2] + names[1::2]


async def test_channels_of_a_process_share_a_shard(
    layer: RedisChannelLayer, valkey: Server
) -> None:
    for i in range(20):
        name = await layer.new_channel(f"prefix{i}")
        neighbour = await layer.new_channel(f"prefix{i}")
        await layer.send(name, {"n": 1})
        await layer.send(neighbour, {"n": 1})
        local = f"prefix{i}.{layer.client_prefix}!"
        assert _shards_of(valkey, f"asgi{local}") == [layer.consistent_hash(local)]


async def test_groups_are_on_all_shards(
    layer: RedisChannelLayer, other: RedisChannelLayer, valkey: Server
) -> None:
    names = {layer: await layer.new_channel(), other: await other.new_channel()}
    used: Counter[int] = Counter()
    for i in range(20):
        group = f"room{i}"
        for home, name in names.items():
            await home.group_add(group, name)
        (shard,) = _shards_of(valkey, f"asgi:group:{group}")
        assert shard == layer.consistent_hash(group)
        used[shard] += 1
        await layer.group_send(group, {"n": i})
        for home, name in names.items():
            assert await soon(home, name) == {"n": i}
            await other.group_discard(group, name)
        assert _shards_of(valkey, f"asgi:group:{group}") == []
    assert set(used) == set(range(SHARDS))


async def test_a_group_over_many_processes(layer: RedisChannelLayer) -> None:
    names = [await layer.new_channel(f"prefix{i}") for i in range(20)]
    for name in names:
        await layer.group_add("room", name)
    await layer.group_add("room", "worker")
    await layer.group_send("room", {"n": 1})
    for name in [*names, "worker"]:
        assert await soon(layer, name) == {"n": 1}


async def test_a_normal_channel_is_on_all_shards(
    layer: RedisChannelLayer, other: RedisChannelLayer, valkey: Server
) -> None:
    for n in range(2 * SHARDS):
        await layer.send("worker", {"n": n})
    assert _shards_of(valkey, "asgiworker") == list(range(SHARDS))
    received = [await soon(other, "worker") for _ in range(2 * SHARDS)]
    assert sorted(message["n"] for message in received) == list(range(2 * SHARDS))


async def test_several_readers_of_a_normal_channel(
    layer: RedisChannelLayer, other: RedisChannelLayer, valkey: Server
) -> None:
    """Messages come on several shards at once, for fewer readers: none is doubled."""
    received: list[int] = []

    async def read(home: RedisChannelLayer, count: int) -> None:
        for _ in range(count):
            received.append((await soon(home, "worker"))["n"])

    reading = [asyncio.create_task(read(home, 100)) for home in (layer, other)]
    for start in range(0, 200, 8):
        batch = range(start, start + 8)
        await asyncio.gather(*(layer.send("worker", {"n": n}) for n in batch))
    await asyncio.gather(*reading)
    assert sorted(received) == list(range(200))
    await layer.close_pools()
    await other.close_pools()
    assert _shards_of(valkey, "asgiworker") == []


async def test_flush_reaches_all_shards(
    layer: RedisChannelLayer, valkey: Server
) -> None:
    for db in range(SHARDS):
        valkey.client(db=db).mset({f"asgi{i}": 1 for i in range(10)})
        valkey.client(db=db).set("other", 1)
    await layer.flush()
    for db in range(SHARDS):
        assert kept(valkey.client(db=db)) == [b"other"]


async def test_connections_by_shard(layer: RedisChannelLayer, valkey: Server) -> None:
    for db in range(SHARDS):
        await layer.connection(db).set("key", db)
        assert valkey.client(db=db).get("key") == str(db).encode()
    with pytest.raises(ValueError, match=f"only {SHARDS} hosts - you asked for 4"):
        layer.connection(SHARDS)
