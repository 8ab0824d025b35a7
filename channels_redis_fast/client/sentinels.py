"""A primary that Sentinels name: who it is, or why none of them names one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis
from redis import asyncio as aioredis
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry
from redis.sentinel import MasterNotFoundError
from redis.sentinel import Sentinel as BlockingSentinel

from .._masking import Masked
from .host import Host
from .host_settings import nodes_of
from .redis_py import OURS, pool_of, time_left

# A Sentinel that is down must not use up the time to ask the others.
_SENTINEL_TIMEOUT = 1.0
_LONGEST_REASON = 120  # characters


class SentinelHost(Host):
    """A primary that Sentinels know by name."""

    finds_primary = True

    # The Sentinel that answered last: one that is down would cost its time each time.
    _first: tuple[str, int] | None = None

    def _pool(self, arguments: dict[str, Any]) -> aioredis.ConnectionPool:
        """A redis-py pool that asks the Sentinels for the primary."""
        name = arguments.pop("master_name")
        addresses = self._addresses(arguments.pop("sentinels"))
        for_sentinels = {
            "socket_timeout": _SENTINEL_TIMEOUT,
            "socket_connect_timeout": _SENTINEL_TIMEOUT,
            **OURS,
            **(arguments.pop("sentinel_kwargs", None) or {}),
        }
        sentinel: Any = AskedSentinels(addresses, sentinel_kwargs=for_sentinels)  # type: ignore[no-untyped-call]
        return SentinelConnectionPool(name, sentinel, **arguments)

    def make_connection(self, *, pushes: bool = False) -> Any:
        """A new connection; what it was found with is closed by `release`."""
        pool = self._connections(pushes)
        connection = pool.make_connection()
        # redis-py's connection knows its pool by a weak proxy only.
        connection._channels_redis_fast_pool = pool
        return connection

    async def release(self, connection: Any) -> None:
        """Closes the connections to the Sentinels."""
        pool = connection.__dict__.pop("_channels_redis_fast_pool", None)
        clients = pool.sentinel_manager.sentinels if pool else []
        for client in clients:
            await client.connection_pool.disconnect()
        if clients:  # the one that answered is in front
            self._first = sentinel_address(clients[0])

    def try_arguments(self) -> None:
        """As a `Host`'s."""
        self.make_connection()
        arguments = self._for_primary("localhost", 1).value
        if "connection_class" not in arguments:
            pool_of(redis, arguments).make_connection()

    def _open_socket(self, deadline: float) -> Any:
        """As a `Host`'s, to the primary that a Sentinel names."""
        name = self._arguments.value["master_name"]
        reasons: dict[tuple[str, int], str] = {}
        for address in self._addresses(self._arguments.value["sentinels"]):
            try:
                host, port = self._ask(address, name, deadline)
            except (redis.RedisError, OSError) as error:
                reasons[address] = str(error)
                continue
            self._first, self.primary = address, (host, port)
            return self._connect_socket(self._for_primary(host, port), deadline)
        raise not_found(name, reasons)

    def _ask(
        self, address: tuple[str, int], name: str, deadline: float
    ) -> tuple[str, int]:
        # Masked: some versions of redis-py print a client with its password.
        asked = Masked(
            self._sentinel(address, min(_SENTINEL_TIMEOUT, time_left(deadline)))
        )
        try:
            masters = asked.value.sentinels[0].sentinel_masters()
            return primary_of(masters, name, asked.value.check_master_state)
        finally:
            asked.value.sentinels[0].connection_pool.disconnect()

    def _sentinel(self, address: tuple[str, int], timeout: float) -> BlockingSentinel:
        options = {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "protocol": 2,
            "retry": BlockingRetry(NoBackoff(), 0),
            **(self._arguments.value.get("sentinel_kwargs") or {}),
        }
        return BlockingSentinel([address], sentinel_kwargs=options)

    def _for_primary(self, host: str, port: int) -> Masked[dict[str, Any]]:
        found = {"sentinels", "master_name", "sentinel_kwargs"}
        arguments = self._arguments.value
        kept = {key: arguments[key] for key in arguments.keys() - found}
        return Masked({**kept, "host": host, "port": port})

    def _addresses(self, addresses: Any) -> list[tuple[str, int]]:
        """Those of the Sentinels, the one first that answered last."""
        return sorted(nodes_of(addresses), key=lambda one: one != self._first)


class AskedSentinels(Sentinel):
    """redis-py's, whose error shows no connection argument, and why each one failed."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The primary's address; raises `MasterNotFoundError`."""
        reasons: dict[tuple[str, int], str] = {}
        for position, client in enumerate(self.sentinels):
            try:
                masters = await client.sentinel_masters()
                found = primary_of(masters, service_name, self.check_master_state)
            except (redis.RedisError, OSError) as error:
                reasons[sentinel_address(client)] = str(error)
                continue
            self.sentinels.insert(0, self.sentinels.pop(position))
            return found
        raise not_found(service_name, reasons)


def primary_of(masters: Any, name: str, is_good: Any) -> tuple[str, int]:
    """The address of a primary, by what a Sentinel knows."""
    state = masters.get(name)
    if state is None:
        raise redis.ResponseError(f"it knows no {name!r}")
    if not is_good(state, name):
        raise redis.ResponseError(f"{name!r} is down, it says, or seen by too few")
    return state["ip"], int(state["port"])


def not_found(name: str, reasons: Mapping[tuple[str, int], str]) -> MasterNotFoundError:
    """The error when none of the Sentinels names one, and why each doesn't; short."""
    told = "; ".join(
        f"{host}:{port}: {reason[:_LONGEST_REASON]}"
        for (host, port), reason in reasons.items()
    )
    return MasterNotFoundError(f"no Sentinel names a primary for {name!r}: {told}")


def sentinel_address(client: Any) -> tuple[str, int]:
    """Where a client of a Sentinel connects to."""
    arguments = client.connection_pool.connection_kwargs
    return arguments["host"], int(arguments["port"])
