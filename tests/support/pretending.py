"""Processes that only seem to be: entries among the heartbeats, members of groups."""

from __future__ import annotations

import uuid
from typing import Any

import msgpack
import redis

from channels_redis_fast.core import RedisChannelLayer

ALIVE = "asgi:alive:{processes}"
ROOM = "asgi:group:room"
INFOS = "asgi:stats:{processes}"

INFO = msgpack.packb({"pid": 7, "host": "elsewhere", "version": "9.9"})


async def beat(layer: Any) -> None:
    """Has a layer's heartbeat beat now."""
    await layer._heartbeat.beat(layer._engine())


def server_time(client: redis.Redis) -> float:
    """The clock of a server."""
    seconds, micro = client.time()
    return float(seconds) + float(micro) / 1e6


def pretend(client: redis.Redis, silent_for: float, *, info: bytes = INFO) -> str:
    """Another process whose last beat was so many seconds ago; its id."""
    name = uuid.uuid4().hex
    client.zadd(ALIVE, {name: server_time(client) - silent_for})
    client.hset(INFOS, name, info)
    return name


def join(
    client: redis.Redis, group: str, process: str, *, ago: float = 300, count: int = 1
) -> str:
    """Members that joined so many seconds ago, of a process; the name of one."""
    names = [f"specific.{process}!{uuid.uuid4().hex}" for _ in range(count)]
    at = server_time(client) - ago
    client.zadd(f"asgi:group:{group}", dict.fromkeys(names, at))
    return names[0]


def age(client: redis.Redis, name: str, seconds: float) -> None:
    """Makes the last beat of a process so many seconds old."""
    client.zadd(ALIVE, {name: server_time(client) - seconds}, xx=True)


def is_written_to(client: redis.Redis, process: str) -> bool:
    """Whether messages wait for a process."""
    return bool(client.exists(f"asgispecific.{process}!"))


async def member(layer: RedisChannelLayer, group: str = "room") -> str:
    """A channel of a layer, which joined a group."""
    name = await layer.new_channel()
    await layer.group_add(group, name)
    return name


def members(client: redis.Redis, group: str = "room") -> set[str]:
    return {name.decode() for name in client.zrange(f"asgi:group:{group}", 0, -1)}
