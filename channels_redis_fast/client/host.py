"""One entry of `hosts`: a server, and how to connect to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import redis
from redis import asyncio as aioredis
from redis import exceptions as errors

from .._counting import Traffic
from .._masking import Masked, with_frames_of_others, without_frames
from .credentials import shared_tokens
from .host_settings import describe
from .redis_py import OURS, blocking_connection, pool_of, time_left, with_credentials
from .server_check import ServerCheck, hear_last_words, plain_words


class Host:
    """One entry of `hosts`: how to reach it, without a connection to it.

    `tokens` tells of new ones, if its credential provider streams them. `traffic` has
    what event loops noticed of it.
    """

    finds_primary = False  # whether another server may be the primary next time
    primary: tuple[str, int] | None = None  # which a blocking caller was led to
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
        self.traffic = Traffic()
        self._settings = Masked(dict(settings))
        self._arguments = Masked(with_credentials(settings, self.connect_timeout))

    @property
    def settings(self) -> dict[str, Any]:
        """The entry as a dict: a new one."""
        return dict(self._settings.value)

    def make_connection(self, *, pushes: bool = False) -> Any:
        """A new redis-py connection to it, not yet connected; for `pushes` or not."""
        return self._connections(pushes).make_connection()

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
        except BaseException as error:
            problem = self._as_told(error)
        raise problem

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

        Raises redis-py's errors, at about `deadline` (monotonic) at the latest, and
        what a signal handler or a credential provider raises: without the frames that
        they passed, some of whose variables are secrets.
        """
        try:
            return self._open_socket(deadline)
        except BaseException as error:
            problem = self._as_told(error)
        raise problem

    def silence(self, seconds: float) -> redis.RedisError:
        """The error when nothing came for so long."""
        error = redis.TimeoutError(f"no answer from {self} within {seconds:g} s")
        return redis.ConnectionError(str(plain_words(error, self, self.is_tls)))

    def try_arguments(self) -> None:
        """Raises what redis-py raises for bad arguments, which it checks at first use.

        A `connection_class` of the application's may be of one kind only.
        """
        self.make_connection()
        if "connection_class" not in self._settings.value:
            pool_of(redis, self._arguments.value).make_connection()

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

    def _as_told(self, error: BaseException) -> BaseException:
        """What came while connecting as callers get it, without frames of secrets."""
        if isinstance(error, (redis.RedisError, OSError)):
            return without_frames(plain_words(error, self, self.is_tls))
        return with_frames_of_others(error)

    @property
    def is_tls(self) -> bool:
        """Whether connections to it speak TLS."""
        settings = self._settings.value
        address = str(settings.get("address", ""))
        return address.startswith("rediss:") or bool(settings.get("ssl"))

    def _open_socket(self, deadline: float) -> Any:
        return self._connect_socket(self._arguments, deadline)

    def _connect_socket(
        self, arguments: Masked[dict[str, Any]], deadline: float
    ) -> Any:
        left = time_left(deadline)
        connection = blocking_connection(
            arguments, left, min(left, self.connect_timeout)
        )
        try:
            connection.connect()
            if not self.check.is_done:
                self.check.ask_blocking(connection, self)
        except BaseException:
            connection.disconnect()
            raise
        found, connection._sock = connection._sock, None
        connection.disconnect()  # it knows no socket any more
        return found

    def _pool(self, arguments: dict[str, Any]) -> aioredis.ConnectionPool:
        pool: aioredis.ConnectionPool = pool_of(aioredis, arguments)
        return pool

    def _connections(self, pushes: bool) -> aioredis.ConnectionPool:
        # Subscribers can authenticate anew by the newer protocol only.
        newer = {"protocol": 3} if pushes and self.tokens else {}
        ours = {**OURS, **newer}
        pool = self.pool(**ours)
        pool.connection_kwargs.update(ours)  # a URL's own options win over arguments
        return pool
