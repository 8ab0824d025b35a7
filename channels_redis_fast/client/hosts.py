"""CONFIG["hosts"] -> the ways to connect: one server, Sentinel, or a Cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import redis
from redis import asyncio as aioredis
from redis import exceptions as errors
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry
from redis.sentinel import Sentinel as BlockingSentinel

from .._masking import Masked, without_frames
from ..exceptions import InvalidSetting
from .credentials import Credentials, shared_tokens
from .host_settings import describe, list_of_settings, nodes_of, refused
from .sentinels import AskedSentinels, not_found, primary_of, sentinel_address
from .server_check import ServerCheck, hear_last_words, plain_words
from .topology import address_of

# A Sentinel that is down must not use up the time to ask the others.
_SENTINEL_TIMEOUT = 1.0


class Host:
    """One entry of `hosts`: how to reach it, without a connection to it.

    `tokens` tells of new ones, if its credential provider streams them.
    """

    finds_primary = False  # whether another server may be the primary next time
    # Takes the answer to TIME on each new connection, where somebody wants to know.
    note_time: Callable[[object], None] | None = None

    def __init__(
        self,
        settings: Mapping[str, Any],
        connect_timeout: float,
        check: ServerCheck | None = None,
    ) -> None:
        # A little less than a call may take: who waits for it is told why it failed.
        self.connect_timeout = float(
            settings.get("socket_connect_timeout") or 0.9 * connect_timeout
        )
        self.tokens = shared_tokens(settings.get("credential_provider"))
        self.check = check or ServerCheck()
        self._settings = Masked(dict(settings))
        self._arguments = Masked(_with_credentials(settings, self.connect_timeout))

    @property
    def settings(self) -> dict[str, Any]:
        """The entry as a dict: a new one."""
        return dict(self._settings.value)

    def make_connection(self, *, pushes: bool = False) -> Any:
        """A new redis-py connection to it, not yet connected; for `pushes` or not.

        Subscribers can authenticate anew by the newer protocol only.
        """
        newer = {"protocol": 3} if pushes and self.tokens else {}
        return self._connections({**_OURS, **newer}).make_connection()

    async def connect(self, connection: Any) -> None:
        """Connects it; raises redis-py's errors, and for what is no Redis 5 or later.

        The first time a server is asked what it is. As `open_socket`, without frames.
        """
        if connection.redis_connect_func is None:
            connection.redis_connect_func = hear_last_words
        try:
            await connection.connect()
            if not self.check.is_done:
                await self.check.ask(connection, self)
            return
        except (redis.RedisError, OSError) as error:
            problem = plain_words(error, self, self._is_tls)
        raise without_frames(problem)

    async def release(self, connection: Any) -> None:
        """Closes what finding the server left open beside the connection."""

    def client(self) -> aioredis.Redis:
        """A redis-py client of its own, for applications that want one."""
        return aioredis.Redis.from_pool(self.pool())

    def pool(self, **ours: Any) -> aioredis.ConnectionPool:
        """A redis-py pool for it; raises what redis-py raises for bad arguments."""
        return self._pool({**self._arguments.value, **ours})

    def open_socket(self, deadline: float) -> Any:
        """A socket that redis-py connected and greeted, for a blocking caller.

        Raises redis-py's errors, at about `deadline` (monotonic) at the latest: without
        the frames that they passed, some of whose variables are secrets.
        """
        try:
            return self._open_socket(deadline)
        except (redis.RedisError, OSError) as error:
            problem = plain_words(error, self, self._is_tls)
        raise without_frames(problem)

    def silence(self, seconds: float) -> redis.RedisError:
        """The error when nothing came for so long."""
        error = redis.TimeoutError(f"no answer from {self} within {seconds:g} s")
        return redis.ConnectionError(str(plain_words(error, self, self._is_tls)))

    def try_arguments(self) -> None:
        """Raises what redis-py raises for bad arguments, which it checks at first use.

        A `connection_class` of the application's may be of one kind only.
        """
        self.make_connection()
        if "connection_class" not in self._settings.value:
            _pool(redis, self._arguments.value).make_connection()

    def explain(self, error: errors.RedisError) -> errors.RedisError:
        """An error reply of this server as callers get it.

        A node of a Cluster that is named as a server has a part of the keys only.
        """
        if not isinstance(error, errors.AskError):  # or MovedError, which is one
            return error
        return errors.ResponseError(
            f"{self} is a node of a Cluster, and is to be named as such in hosts, "
            f'{{"cluster": [...]}}: it sends elsewhere for slot {error}'
        )

    def __str__(self) -> str:
        return describe(self._settings.value)

    @property
    def _is_tls(self) -> bool:
        settings = self._settings.value
        address = str(settings.get("address", ""))
        return address.startswith("rediss:") or bool(settings.get("ssl"))

    def _open_socket(self, deadline: float) -> Any:
        return _open_socket(self, self._arguments, deadline)

    def _pool(self, arguments: dict[str, Any]) -> aioredis.ConnectionPool:
        pool: aioredis.ConnectionPool = _pool(aioredis, arguments)
        return pool

    def _connections(self, ours: dict[str, Any]) -> aioredis.ConnectionPool:
        pool = self.pool(**ours)
        pool.connection_kwargs.update(ours)  # a URL's own options win over arguments
        return pool


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
            **_OURS,
            **(arguments.pop("sentinel_kwargs", None) or {}),
        }
        sentinel: Any = AskedSentinels(addresses, sentinel_kwargs=for_sentinels)  # type: ignore[no-untyped-call]
        return SentinelConnectionPool(name, sentinel, **arguments)

    def make_connection(self, *, pushes: bool = False) -> Any:
        """A new connection; what it was found with is closed by `release`."""
        newer = {"protocol": 3} if pushes and self.tokens else {}
        pool = self._connections({**_OURS, **newer})
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
            _pool(redis, arguments).make_connection()

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
            self._first = address
            return _open_socket(self, self._for_primary(host, port), deadline)
        raise not_found(name, reasons)

    def _ask(
        self, address: tuple[str, int], name: str, deadline: float
    ) -> tuple[str, int]:
        # Masked: some versions of redis-py print a client with its password.
        asked = Masked(self._sentinel(address, min(_SENTINEL_TIMEOUT, _left(deadline))))
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


class ClusterHost(Host):
    """A Redis Cluster, known by some of its nodes."""

    finds_primary = True

    @property
    def nodes(self) -> list[tuple[str, int]]:
        """The nodes that the settings name."""
        return nodes_of(self._settings.value["cluster"])

    def node(self, host: str, port: int) -> Host:
        """One node of it, with the credentials and options of all."""
        settings = {**self._settings.value, "host": host, "port": port}
        del settings["cluster"]
        node = ClusterNode(settings, self.connect_timeout, self.check)
        node.note_time = self.note_time
        return node

    def client(self) -> Any:
        """A redis-py client of its own, for applications that want one."""
        arguments = {**self._arguments.value}
        del arguments["cluster"]
        nodes = [aioredis.cluster.ClusterNode(*node) for node in self.nodes]
        return aioredis.RedisCluster(startup_nodes=nodes, **arguments)

    def pool(self, **ours: Any) -> aioredis.ConnectionPool:
        """Raises `InvalidSetting`: there is a pool for each node."""
        raise InvalidSetting(f"{self} has no one pool: use redis.asyncio.RedisCluster")

    def try_arguments(self) -> None:
        """As a `Host`'s."""
        for node in self.nodes:
            self.node(*node).try_arguments()


class ClusterNode(Host):
    """One node of a Redis Cluster."""

    def explain(self, error: errors.RedisError) -> errors.RedisError:
        """An error reply as callers get it: where it sends them is an address."""
        if isinstance(error, errors.AskError):
            asked = self.settings["host"]
            error.host, error.port = address_of(error.host, error.port, asked)
        return error


# Ours for the connections that we take over: the old protocol, whose pushes the
# pipeline knows, and no retries below our own back-off.
_OURS: dict[str, Any] = {"protocol": 2, "retry": Retry(NoBackoff(), 0)}


def _with_credentials(settings: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Arguments with credential providers that serve all kinds of callers."""
    arguments = dict(settings)
    if (provider := arguments.get("credential_provider")) is not None:
        arguments["credential_provider"] = Credentials(provider, timeout)
    if for_sentinels := arguments.get("sentinel_kwargs"):
        arguments["sentinel_kwargs"] = _with_credentials(for_sentinels, timeout)
    return arguments


def _pool(kinds: Any, arguments: Mapping[str, Any]) -> Any:
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


def _open_socket(host: Host, arguments: Masked[dict[str, Any]], deadline: float) -> Any:
    left = _left(deadline)
    connection = _blocking_connection(arguments, left, min(left, host.connect_timeout))
    connection.connect()
    try:
        if not host.check.is_done:
            host.check.ask_blocking(connection, host)
    except BaseException:
        connection.disconnect()
        raise
    found, connection._sock = connection._sock, None
    connection.disconnect()  # it knows no socket any more
    return found


def _blocking_connection(
    arguments: Masked[dict[str, Any]], timeout: float, connect_timeout: float
) -> Any:
    pool = _pool(redis, arguments.value)
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


def _left(deadline: float) -> float:
    """Seconds until a deadline; raises when it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise redis.TimeoutError("no time left to connect")
    return left


def decode_hosts(hosts: Any, connect_timeout: float) -> list[Host]:
    """The entries of `hosts`, checked; raises `InvalidSetting` naming a bad one.

    It comes without the frames that it passed: some of their variables are secrets.
    """
    hosts = hosts if isinstance(hosts, Masked) else Masked(hosts)
    try:
        return [
            _make_host(one, connect_timeout) for one in list_of_settings(hosts.value)
        ]
    except InvalidSetting as error:
        problem = error
    raise without_frames(problem)


def _make_host(settings: dict[str, Any], connect_timeout: float) -> Host:
    kind = Host
    if "cluster" in settings:
        kind = ClusterHost
    elif "sentinels" in settings:
        kind = SentinelHost
    try:
        host = kind(settings, connect_timeout)
        host.try_arguments()
    except Exception as error:  # of whatever class redis-py raises
        raise refused(settings, error) from None
    return host
