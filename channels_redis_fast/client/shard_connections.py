"""The connections to one entry of `hosts` in one event loop: opened, kept, closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from redis import exceptions as errors

from .._logs import inform
from .connection import PipelinedConnection
from .health import Health
from .host import Host
from .opening import open_connection
from .reconnecting import ReconnectingConnection
from .reply_queue import Push
from .spare import SpareConnections

T = TypeVar("T")


class ShardConnections:
    """All that is open to a host, and what goes on in the background.

    `wait` is how long (seconds) its readers block at a time.
    """

    wait: float = 5.0

    def __init__(self, host: Host, command_timeout: float) -> None:
        self.host = host
        self.command_timeout = command_timeout
        self.closed = False
        self.health = Health(host)
        self._loop = asyncio.get_running_loop()
        self._links: set[ReconnectingConnection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._spare = SpareConnections()
        self._client: Any = None

    def reader_link(
        self,
        key: bytes,
        greet: Callable[[PipelinedConnection], Awaitable[None]],
        on_ready: Callable[[], None],
        on_down: Callable[[Exception], None],
    ) -> ReconnectingConnection:
        """A link of its own for a reader, whose blocking waits hold up the pipe."""
        deadline = self.wait + self.command_timeout

        async def open_() -> PipelinedConnection:
            host = await self._host_of(key)
            server = str(host)
            if (connection := self._spare.take(server)) is None:
                connection = await open_connection(host, deadline=deadline)
                connection.server = server
            return connection

        return self._new_link(open_, greet, on_ready, on_down, eager=True)

    def push_link(
        self,
        node: Any,
        on_push: Push,
        greet: Callable[[PipelinedConnection], Awaitable[None]],
        on_ready: Callable[[], None],
        on_down: Callable[[Exception], None],
    ) -> ReconnectingConnection:
        """A link of its own for subscriptions at a node that `node_of` named."""
        host, deadline = self.host_at(node), self.command_timeout

        async def open_() -> PipelinedConnection:
            return await open_connection(host, deadline=deadline, on_push=on_push)

        return self._new_link(open_, greet, on_ready, on_down, eager=True)

    async def release_link(self, link: ReconnectingConnection) -> None:
        """Ends a link that `reader_link` gave; the next one may have its connection."""
        connection = link.detach()
        await self.close_link(link)
        if connection is None:
            return
        if self.closed:
            await connection.aclose()
        else:
            self._spare.keep(connection)

    def reopen(self, link: ReconnectingConnection, error: Exception) -> None:
        """Connects a link anew: by that error its server is no primary any more."""
        self._spare.clear()
        link.reopen(error)

    async def close_link(self, link: ReconnectingConnection) -> None:
        """Ends a link that `reader_link` or `push_link` gave."""
        self._links.discard(link)
        self.health.forget(link)
        await link.aclose()

    async def retire_link(self, link: ReconnectingConnection) -> None:
        """The same, when who waits for it or for an answer has that."""
        await link.retire()
        await self.close_link(link)

    def tidy(self) -> None:
        """Closes what nobody needed for a while; called every second or so."""
        self._spare.close_old()

    def client(self) -> Any:
        """A redis-py client of its own, closed with this shard."""
        if self._client is None:
            self._client = self.host.client()
        return self._client

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs work that outlives its caller; `aclose` ends it."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    async def aclose(self) -> None:
        """Ends the work that is under way and closes every connection."""
        self.closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._spare.clear()
        links, self._links = self._links, set()
        await asyncio.gather(*(link.aclose() for link in links))
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    # Where a connection goes: a Cluster has its own answers

    async def _host_of(self, key: bytes) -> Host:
        return self.host

    def host_at(self, node: Any) -> Host:
        """How to reach a server that `node_of` named."""
        return self.host

    # Steps

    def _new_link(
        self,
        open_: Callable[[], Awaitable[PipelinedConnection]],
        greet: Callable[[PipelinedConnection], Awaitable[None]],
        on_ready: Callable[[], None] | None = None,
        on_down: Callable[[Exception], None] | None = None,
        eager: bool = False,
    ) -> ReconnectingConnection:
        if self.closed:  # nobody would close its connection
            raise errors.ConnectionError(f"the connections to {self.host} are closed")

        def ready() -> None:
            self.health.back(link)
            if on_ready is not None:
                on_ready()

        def down(error: Exception) -> None:
            self.health.lost(link, error)
            self._spare.clear()
            if on_down is not None:
                on_down(error)

        link = ReconnectingConnection(
            open_, greet=greet, on_ready=ready, on_down=down, eager=eager
        )
        self._links.add(link)
        return link

    async def _open(self, host: Host) -> PipelinedConnection:
        return await open_connection(host, deadline=self.command_timeout)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            inform("in the background, with %s: %s", self.host, error)
