"""Asks every server of a layer whether it answers, and how quickly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from redis import exceptions as errors

from ..commands.errors import unanswered
from ..types import Ping
from .blocking_pool import BlockingPool
from .blocking_shard import BlockingShard
from .reconnecting import ReconnectingConnection
from .shard import Shard
from .timeouts import timeout

_PING = (b"PING",)


async def ping_shards(shards: Iterable[Shard], seconds: float) -> list[Ping]:
    """What the servers of all shards answer, within so many seconds."""
    found = await asyncio.gather(*(_ping_shard(shard, seconds) for shard in shards))
    return [ping for pings in found for ping in pings]


def ping_blocking(shards: list[BlockingShard], seconds: float) -> list[Ping]:
    """The same for a caller that blocks, one server after the other.

    Each has its share of the time that is left: one that hangs leaves some to others.
    """
    deadline, found = time.monotonic() + seconds, list[Ping]()
    for number, shard in enumerate(shards):
        until = _share(deadline, len(shards) - number)
        try:
            pools = shard.primaries(until)
        except errors.RedisError as error:
            found.append(_failed(str(shard.host), error))
            continue
        for position, pool in enumerate(pools):
            found.append(_ping_pool(pool, _share(until, len(pools) - position)))
    return found


async def _ping_shard(shard: Shard, seconds: float) -> list[Ping]:
    deadline = time.monotonic() + seconds
    try:
        async with timeout(seconds):
            links = await shard.links()
    except asyncio.TimeoutError:
        return [_failed(str(shard.host), unanswered(seconds))]
    except errors.RedisError as error:
        return [_failed(str(shard.host), error)]
    return await asyncio.gather(
        *(
            _ping_link(str(shard.host_at(node)), link, deadline)
            for node, link in links.items()
        )
    )


async def _ping_link(host: str, link: ReconnectingConnection, deadline: float) -> Ping:
    left = deadline - time.monotonic()
    try:
        async with timeout(left):
            connection = await link.get()
            began = time.perf_counter()
            await connection.call(_PING)
            return Ping(host, time.perf_counter() - began)
    except asyncio.TimeoutError:
        return _failed(host, unanswered(left))
    except errors.RedisError as error:
        return _failed(host, error)


def _ping_pool(pool: BlockingPool, deadline: float) -> Ping:
    reply = pool.ask(_PING, deadline)  # which may have connected first
    began = time.perf_counter()
    if not isinstance(reply, Exception):
        reply = pool.ask(_PING, deadline)
    if isinstance(reply, Exception):
        return _failed(str(pool.host), reply)
    return Ping(str(pool.host), time.perf_counter() - began)


def _failed(host: str, error: Exception) -> Ping:
    return Ping(host, None, str(error) or type(error).__name__)


def _share(deadline: float, parts: int) -> float:
    """When the first of so many that are left has to be done."""
    now = time.monotonic()
    return now + max(0.0, deadline - now) / parts
