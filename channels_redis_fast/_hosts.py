"""CONFIG["hosts"] -> the ways to connect: one server, Sentinel, or a Cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis import asyncio as aioredis
from redis import exceptions as errors
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry
from redis.sentinel import Sentinel as BlockingSentinel

from ._slots import address_of
from .exceptions import InvalidSetting

DEFAULT_HOSTS = ("redis://localhost:6379",)

# A Sentinel that is down must not use up the time to ask the others.
_SENTINEL_TIMEOUT = 1.0


class Host:
    """One entry of `hosts`: how to reach it, without a connection to it."""

    finds_primary = False  # whether another server may be the primary next time

    def __init__(self, settings: Mapping[str, Any], connect_timeout: float) -> None:
        self.settings = dict(settings)
        self.connect_timeout = float(
            self.settings.get("socket_connect_timeout") or connect_timeout
        )

    def make_connection(self) -> Any:
        """A new redis-py connection to it, not yet connected."""
        return self._connections().make_connection()

    async def release(self, connection: Any) -> None:
        """Closes what finding the server left open beside the connection."""

    def client(self) -> aioredis.Redis:
        """A redis-py client of its own, for applications that want one."""
        return aioredis.Redis.from_pool(self.pool(self.settings))

    def pool(self, settings: Mapping[str, Any]) -> aioredis.ConnectionPool:
        """A redis-py pool for it; raises what redis-py raises for bad arguments."""
        pool: aioredis.ConnectionPool = _pool(aioredis, settings)
        return pool

    def open_socket(self, deadline: float) -> Any:
        """A socket that redis-py connected and greeted, for a blocking caller.

        Raises redis-py's errors, at about `deadline` (monotonic) at the latest.
        """
        return _open_socket(self.settings, deadline, self.connect_timeout)

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
        return describe(self.settings)

    def _connections(self) -> aioredis.ConnectionPool:
        pool = self.pool({**self.settings, **_OURS})
        pool.connection_kwargs.update(_OURS)  # a URL's own options win over arguments
        return pool


class SentinelHost(Host):
    """A primary that Sentinels know by name."""

    finds_primary = True

    # The Sentinel that answered last: one that is down would cost its time each time.
    _first: tuple[str, int] | None = None

    def pool(self, settings: Mapping[str, Any]) -> aioredis.ConnectionPool:
        """A redis-py pool that asks the Sentinels for the primary."""
        settings = dict(settings)
        name = settings.pop("master_name")
        addresses = [tuple(address) for address in settings.pop("sentinels")]
        for_sentinels = {
            "socket_timeout": _SENTINEL_TIMEOUT,
            "socket_connect_timeout": _SENTINEL_TIMEOUT,
            **_OURS,
            **(settings.pop("sentinel_kwargs", None) or {}),
        }
        addresses.sort(key=lambda address: address != self._first)
        sentinel = Sentinel(addresses, sentinel_kwargs=for_sentinels)
        return SentinelConnectionPool(name, sentinel, **settings)

    def make_connection(self) -> Any:
        """A new connection; what it was found with is closed by `release`."""
        pool = self._connections()
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
        if clients:  # redis-py puts the one that answered in front
            answered = clients[0].connection_pool.connection_kwargs
            self._first = answered["host"], answered["port"]

    def open_socket(self, deadline: float) -> Any:
        """As a `Host`'s, to the primary that a Sentinel names."""
        settings = dict(self.settings)
        name = settings.pop("master_name")
        addresses = [tuple(address) for address in settings.pop("sentinels")]
        options = settings.pop("sentinel_kwargs", None) or {}
        addresses.sort(key=lambda address: address != self._first)
        problem: Exception | None = None
        for address in addresses:
            try:
                host, port = _ask_sentinel(address, options, name, deadline)
                break
            except (redis.RedisError, OSError) as error:
                problem = error
        else:
            raise redis.ConnectionError(f"no Sentinel names {self}: {problem}")
        self._first = address
        settings.update(host=host, port=port)
        return _open_socket(settings, deadline, self.connect_timeout)


class ClusterHost(Host):
    """A Redis Cluster, known by some of its nodes."""

    finds_primary = True

    @property
    def nodes(self) -> list[tuple[str, int]]:
        """The nodes that the settings name."""
        return [(host, int(port)) for host, port in self.settings["cluster"]]

    def node(self, host: str, port: int) -> Host:
        """One node of it, with the credentials and options of all."""
        settings = {k: v for k, v in self.settings.items() if k != "cluster"}
        settings.update(host=host, port=port)
        return ClusterNode(settings, self.connect_timeout)

    def client(self) -> Any:
        """A redis-py client of its own, for applications that want one."""
        settings = {k: v for k, v in self.settings.items() if k != "cluster"}
        nodes = [aioredis.cluster.ClusterNode(*node) for node in self.nodes]
        return aioredis.RedisCluster(startup_nodes=nodes, **settings)


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


def _pool(kinds: Any, settings: Mapping[str, Any]) -> Any:
    """A pool of redis-py, or of its asyncio half."""
    settings = dict(settings)
    address = settings.pop("address", None)
    if address is not None:
        return kinds.ConnectionPool.from_url(address, **settings)
    if "path" in settings:
        settings.setdefault("connection_class", kinds.UnixDomainSocketConnection)
    elif settings.pop("ssl", False):
        settings.setdefault("connection_class", kinds.SSLConnection)
    return kinds.ConnectionPool(**settings)


def _open_socket(settings: Mapping[str, Any], deadline: float, limit: float) -> Any:
    pool = _pool(redis, settings)
    left = _left(deadline)
    # A URL's own options would win over arguments.
    pool.connection_kwargs.update(
        protocol=2,
        retry=BlockingRetry(NoBackoff(), 0),
        retry_on_timeout=False,
        socket_timeout=left,
        socket_connect_timeout=min(left, limit),
        health_check_interval=0,
    )
    connection = pool.make_connection()
    try:
        connection.connect()
    except OSError as error:
        raise redis.ConnectionError(str(error)) from error
    found, connection._sock = connection._sock, None
    connection.disconnect()  # it knows no socket any more
    return found


def _ask_sentinel(
    address: tuple[str, int], options: Mapping[str, Any], name: str, deadline: float
) -> tuple[str, int]:
    timeout = min(_SENTINEL_TIMEOUT, _left(deadline))
    ours = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "protocol": 2,
        "retry": BlockingRetry(NoBackoff(), 0),
    }
    sentinel = BlockingSentinel([address], sentinel_kwargs={**ours, **options})
    try:
        host, port = sentinel.discover_master(name)
        return host, int(port)
    finally:
        for client in sentinel.sentinels:
            client.connection_pool.disconnect()


def _left(deadline: float) -> float:
    """Seconds until a deadline; raises when it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise redis.TimeoutError("no time left to connect")
    return left


def decode_hosts(hosts: Any, connect_timeout: float) -> list[Host]:
    """The entries of `hosts`, checked; raises `InvalidSetting` naming a bad one."""
    if not hosts:
        hosts = DEFAULT_HOSTS
    if isinstance(hosts, (str, bytes, Mapping)) or not isinstance(hosts, Sequence):
        raise InvalidSetting(
            "hosts must be a list of Redis hosts, even if there is only one, "
            f"not {_mask(hosts)}"
        )
    return [_decode(entry, connect_timeout) for entry in hosts]


def describe(settings: Mapping[str, Any]) -> str:
    """A host in words that may be logged: no password, no user."""
    if "address" in settings:
        return _without_login(str(settings["address"]))
    if "cluster" in settings:
        nodes = ", ".join(f"{host}:{port}" for host, port in settings["cluster"])
        return f"cluster {nodes}"
    if "master_name" in settings:
        return f"sentinel master {settings['master_name']}"
    if "path" in settings:
        return f"unix://{settings['path']}"
    return f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"


def _decode(entry: Any, connect_timeout: float) -> Host:
    settings = _settings(entry)
    kind = _kind(entry, settings)
    host = kind(settings, connect_timeout)
    try:
        # redis-py checks URLs and argument names only when it uses them.
        if isinstance(host, ClusterHost):
            for node in host.nodes:
                host.node(*node).make_connection()
        else:
            host.make_connection()
    except Exception as error:
        # What redis-py says of a URL may quote a part of its password.
        is_url = "address" in settings and not isinstance(error, TypeError)
        reason = "no Redis URL" if is_url else error
        raise InvalidSetting(f"bad host {_mask(entry)}: {reason}") from None
    return host


def _settings(entry: Any) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"address": entry}
    if isinstance(entry, (tuple, list)) and len(entry) == 2:
        return {"host": entry[0], "port": entry[1]}
    if isinstance(entry, Mapping):
        return dict(entry)
    raise InvalidSetting(
        "a host is a URI, a (host, port) pair or a dict of connection arguments, "
        f"not {_mask(entry)}"
    )


def _kind(entry: Any, settings: dict[str, Any]) -> type[Host]:
    if "cluster" in settings:
        _check_addresses(entry, settings["cluster"], "cluster")
        return ClusterHost
    if "sentinels" in settings or "master_name" in settings:
        if not ("sentinels" in settings and "master_name" in settings):
            text = "sentinels and master_name go together"
            raise InvalidSetting(f"bad host {_mask(entry)}: {text}")
        _check_addresses(entry, settings["sentinels"], "sentinels")
        _check_text(entry, settings, "master_name")
        return SentinelHost
    for name in "address", "path":
        _check_text(entry, settings, name)
    if "address" not in settings and "path" not in settings:
        _check_address(entry, (settings.get("host", "localhost"), settings.get("port")))
    return Host


def _check_text(entry: Any, settings: dict[str, Any], name: str) -> None:
    value = settings.get(name, "given")
    if not isinstance(value, str) or not value:
        raise InvalidSetting(f"bad host {_mask(entry)}: {name} must be a str")


def _check_addresses(entry: Any, addresses: Any, name: str) -> None:
    if not isinstance(addresses, Sequence) or isinstance(addresses, (str, bytes)):
        raise InvalidSetting(f"bad host {_mask(entry)}: {name} must be a list")
    if not addresses:
        raise InvalidSetting(f"bad host {_mask(entry)}: {name} is empty")
    for address in addresses:
        _check_address(entry, address)


def _check_address(entry: Any, address: Any) -> None:
    if not isinstance(address, (tuple, list)) or len(address) != 2:
        text = f"{_mask(address)} is not a (host, port) pair"
        raise InvalidSetting(f"bad host {_mask(entry)}: {text}")
    host, port = address
    if not isinstance(host, str) or not host or "/" in host or "@" in host:
        raise InvalidSetting(f"bad host {_mask(entry)}: no host name: {_mask(host)}")
    valid = port is None or (str(port).isdecimal() and 0 < int(port) < 65536)
    if not valid:
        raise InvalidSetting(f"bad host {_mask(entry)}: no port number: {port!r}")


def _mask(entry: Any) -> str:
    """The entry for an error message, without its passwords."""
    return repr(_masked(entry))


def _masked(value: Any, name: str = "") -> Any:
    if "password" in name:
        return "***"
    if isinstance(value, Mapping):
        return {k: _masked(v, str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        # (host, port, password) is no entry, and may be taken for one.
        shown = 2 if len(value) > 2 and isinstance(value[1], int) else len(value)
        return (*map(_masked, value[:shown]), *("***" for _ in value[shown:]))
    if isinstance(value, str) and "://" in value:
        query = "?***" if "?" in value else ""
        login = "***@" if "@" in value else ""
        scheme, _, place = _without_login(value).partition("://")
        return f"{scheme}://{login}{place}{query}"
    return value


def _without_login(url: str) -> str:
    """A URL without what may be secret: user, password, query."""
    scheme, _, rest = url.partition("://")
    place = rest.split("?")[0]
    if "@" in place:
        place = place.rpartition("@")[2]
    elif "@" in rest:  # a password with a question mark that should be encoded
        place = "***"
    return f"{scheme}://{place}"
