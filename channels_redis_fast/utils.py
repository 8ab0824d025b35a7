"""For applications that open redis-py clients of their own, by CONFIG's `hosts`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio import ConnectionPool

from .client.hosts import decode_hosts as hosts_of

__all__ = ["create_pool", "decode_hosts"]

_CONNECT_TIMEOUT = 5.0  # seconds


def decode_hosts(hosts: Any) -> list[dict[str, Any]]:
    """The entries of `hosts` as dicts, each of which `create_pool` takes.

    Raises `InvalidSetting`, which is a `ValueError`, naming a bad one.
    """
    return [host.settings for host in hosts_of(hosts, _CONNECT_TIMEOUT)]


def create_pool(host: Mapping[str, Any]) -> ConnectionPool:
    """A pool of redis-py's asynchronous connections for a host.

    Its clients belong to one event loop: `redis.asyncio.Redis(connection_pool=pool)`.
    Raises `InvalidSetting`, also for a Cluster, which has no one pool.
    """
    (found,) = hosts_of([host], _CONNECT_TIMEOUT)
    return found.pool()
