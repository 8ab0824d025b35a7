"""Connections as redis-py makes them, by the arguments of an entry of `hosts`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry

from .._masking import Masked
from .credentials import Credentials

# Ours for the connections that we take over: the old protocol, whose pushes the
# pipeline knows, and no retries below our own back-off.
OURS: dict[str, Any] = {"protocol": 2, "retry": Retry(NoBackoff(), 0)}


def with_credentials(settings: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Arguments with credential providers that serve all kinds of callers."""
    arguments = dict(settings)
    if (provider := arguments.get("credential_provider")) is not None:
        arguments["credential_provider"] = Credentials(provider, timeout)
    if for_sentinels := arguments.get("sentinel_kwargs"):
        arguments["sentinel_kwargs"] = with_credentials(for_sentinels, timeout)
    return arguments


def pool_of(kinds: Any, arguments: Mapping[str, Any]) -> Any:
    """A pool of redis-py, or of its asyncio half."""
    arguments = dict(arguments)
    address = arguments.pop("address", None)
    if address is not None:
        return kinds.ConnectionPool.from_url(address, **arguments)
    if "path" in arguments:
        arguments.setdefault("connection_class", kinds.UnixDomainSocketConnection)
    elif arguments.pop("ssl", False):
        arguments.setdefault("connection_class", kinds.SSLConnection)
    return kinds.ConnectionPool(**arguments)


def blocking_connection(
    arguments: Masked[dict[str, Any]], timeout: float, connect_timeout: float
) -> Any:
    """A connection for a blocking caller, not yet connected."""
    pool = pool_of(redis, arguments.value)
    # A URL's own options would win over arguments.
    pool.connection_kwargs.update(
        protocol=2,
        retry=BlockingRetry(NoBackoff(), 0),
        retry_on_timeout=False,
        socket_timeout=timeout,
        socket_connect_timeout=connect_timeout,
        health_check_interval=0,
    )
    return pool.make_connection()


def time_left(deadline: float) -> float:
    """Seconds until a deadline; raises when it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise redis.TimeoutError("no time left to connect")
    return left
