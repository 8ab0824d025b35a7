"""One entry of `hosts` seen from one event loop: run commands, wait, retry rules."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, TypeVar

from redis import exceptions as errors

from .._logs import inform
from ..commands.command import Command
from ..commands.errors import is_demotion, is_passing
from ..commands.scripts import EVALSHA, as_known, key_of
from .administration import unblock_client, unlink_keys
from .backlog import Backlog, Call
from .connection import PipelinedConnection, Push
from .health import Health
from .held_back import Receiver, Refused
from .hosts import Host
from .opening import open_connection
from .reconnecting import ReconnectingConnection
from .spare import SpareConnections
from .steps import Restore, run_steps

T = TypeVar("T")

# A call's second step may end so much of `command_timeout` late.
_SLACK = 0.02


class Shard:
    """A single server, or the primary that Sentinels name.

    `wait` is how long (seconds) its readers block at a time.
    """

    wait: float = 5.0
    is_cluster = False

    def __init__(
        self, index: int, host: Host, command_timeout: float, restore: Restore
    ) -> None:
        self.index = index
        self.host = host
        self.command_timeout = command_timeout
        self.closed = False
        self.health = Health(host)
        self._restore = restore
        self._loop = asyncio.get_running_loop()
        self._links: set[ReconnectingConnection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._spare = SpareConnections()
        self._client: Any = None
        self._backlog = Backlog(
            command_timeout,
            self._link_of,
            self._heed,
            self.health.taken,
            self.is_stranger,
            self.is_cluster,
        )
        self._main = self._command_link(lambda: self._open(self.host), self._greet)

    # What readers, groups and the layers use

    def run(self, command: Command, began: float = 0.0) -> asyncio.Future[Any]:
        """The reply to a command, within `command_timeout` of its call.

        That began at `began` (`time.monotonic()`; 0: now). Raises redis-py's
        `ConnectionError` when the connection breaks or is not there, and what Redis
        answers. What may be tried again is, in its place: in one event loop commands
        are written in the order in which they were given here, as far as they are for
        one server or for one key.
        """
        future = self._loop.create_future()
        connection = self._ready(command)
        if connection is None or (began and self._is_late(began)):
            self._backlog.add(future, command, began)
        else:
            if command[0] is EVALSHA and command[1] not in connection.scripts:
                command = as_known(command, connection.scripts)
            connection.submit(future, command)
        return future

    async def run_all(self, commands: list[Command], began: float = 0.0) -> list[Any]:
        """The replies to commands written together; an error stands in its place."""
        futures = [self.run(command, began) for command in commands]
        try:
            return [await _outcome(future) for future in futures]
        except BaseException:  # a cancellation: nobody will ask for the others
            for future in futures:
                if not future.cancel() and not future.cancelled():
                    future.exception()  # has been seen
            raise

    # For those who don't wait for replies

    def post(self, command: Command, receipt: Receiver) -> bool | None:
        """Queues a command whose outcome a receipt takes; None when nothing takes it.

        As `PipelinedConnection.submit`.
        """
        connection = self._ready(command)
        if connection is None:
            return None
        return connection.submit(receipt, as_known(command, connection.scripts))

    def post_later(
        self,
        command: Command,
        receipt: Receiver,
        written: asyncio.Future[bool] | None = None,
    ) -> None:
        """Queues a command in its turn; `written` is done then, or has the error."""
        self._backlog.add(receipt, command, written=written)

    # Links, and what else there is of a host

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
        host, deadline = self._host_at(node), self.command_timeout

        async def open_() -> PipelinedConnection:
            return await open_connection(host, deadline=deadline, on_push=on_push)

        return self._new_link(open_, greet, on_ready, on_down, eager=True)

    async def node_of(self, key: bytes, *, anew: bool = False) -> Any:
        """Which of its servers a key is on; `anew`: don't trust what was known."""
        return None

    async def look_up(self) -> None:
        """Asks anew which of its servers has what, where there are several."""

    def place_of(self, key: bytes) -> tuple[int, Any] | None:
        """Its index and the server that has a key, as far as is known; None: nobody."""
        return self.index, None

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

    def tidy(self) -> None:
        """Closes what nobody needed for a while; called every second or so."""
        self._spare.close_old()

    async def close_link(self, link: ReconnectingConnection) -> None:
        """Ends a link that `reader_link` or `push_link` gave."""
        self._links.discard(link)
        self.health.forget(link)
        await link.aclose()

    async def unblock(self, key: bytes, client_id: int) -> bool:
        """Ends the blocking wait of a connection; whether it was waiting."""
        return await unblock_client(await self._main.get(), client_id)

    def watch(self, key: bytes, moved: Callable[[], None]) -> None:
        """Has `moved` called when a sender finds `key` elsewhere, in a Cluster."""

    def unwatch(self, key: bytes, moved: Callable[[], None]) -> None:
        """Ends it, unless somebody else watches the key by now."""

    async def redirect(self, key: bytes, error: errors.RedisError) -> bool:
        """Learns from an error that a reader got; whether to read elsewhere now."""
        return False

    def follow_primary(self, error: Exception) -> None:
        """A reader found another primary after an error: commands are to go there, too.

        An idle connection hears nothing of the switch; who is connected anew puts
        members back.
        """
        connection = self._main.connection
        if connection is None or connection.is_idle:  # else it will hear by itself
            self._main.reopen(error)

    async def unlink(self, pattern: bytes) -> None:
        """Deletes the keys that match a glob pattern; raises what Redis answers."""
        await unlink_keys(self, pattern)

    async def primaries(self) -> list[ReconnectingConnection]:
        """The links to all servers that have keys; raises redis-py's errors."""
        return [self._main]

    def is_stranger(self) -> bool:
        """Whether nothing says that the server is, or was, a primary."""
        return not self._main.is_heard and not self.host.finds_primary

    def note(self, error: Exception) -> None:
        """Draws conclusions from an error before all servers are asked again."""
        if is_demotion(error):
            self.follow_primary(error)
        self._note_refusal(error)

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
        self._backlog.close()
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

    # Where a command goes: a Cluster has its own answers

    def _ready(self, command: Command) -> PipelinedConnection | None:
        """The connection that takes a command now; None if others come first."""
        return self._usable(self._main, command)

    def _usable(
        self, link: ReconnectingConnection, command: Command
    ) -> PipelinedConnection | None:
        connection, keys = link.connection, self._backlog.keys
        if connection is None or connection.paused:
            return None
        return None if keys and key_of(command) in keys else connection

    def _link_of(self, call: Call) -> ReconnectingConnection | None:
        """Where a call that waits goes; None: not known yet."""
        return self._main

    async def _host_of(self, key: bytes) -> Host:
        return self.host

    def _host_at(self, node: Any) -> Host:
        return self.host

    # What was refused

    def _refused(
        self,
        link: ReconnectingConnection,
        connection: PipelinedConnection,
        refused: Refused,
    ) -> None:
        """Tries again what a connection wrote; all of it is answered by now."""
        self._backlog.take_back(refused)
        demotions = [error for _, error in refused if is_demotion(error)]
        if demotions:
            if link.connection is connection:
                self.reopen(link, demotions[0])
            self._backlog.go_on()

    def _heed(self, call: Call, error: Exception) -> None:
        """Draws conclusions from the error of a call that is tried again."""
        self._note_refusal(error)

    def _note_refusal(self, error: Exception) -> None:
        if is_passing(error) or is_demotion(error):
            self.health.refused(error)

    def _is_late(self, began: float) -> bool:
        """Whether a call's next step needs a deadline of its own."""
        return monotonic() - began > self.command_timeout * _SLACK

    # Links and tasks

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            inform("in the background, with %s: %s", self.host, error)

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

    def _command_link(
        self,
        open_: Callable[[], Awaitable[PipelinedConnection]],
        greet: Callable[[PipelinedConnection], Awaitable[None]],
        on_down: Callable[[Exception], None] | None = None,
        eager: bool = False,
    ) -> ReconnectingConnection:
        """A link for commands: what waits for it is written before anything newer."""

        def ready() -> None:
            if link.connection is not None:
                link.connection.on_refused = functools.partial(self._refused, link)
                link.connection.on_resumed = lambda _: self._backlog.go_on()
            self._backlog.go_on()

        def down(error: Exception) -> None:
            if on_down is not None:
                on_down(error)
            self._backlog.go_on()

        link = self._new_link(open_, greet, ready, down, eager)
        link.on_cancelled = self._backlog.go_on
        return link

    async def _open(self, host: Host) -> PipelinedConnection:
        return await open_connection(host, deadline=self.command_timeout)

    async def _greet(self, connection: PipelinedConnection) -> None:
        await run_steps(self._restore(self.index, lambda key: True, False), connection)


async def _outcome(future: asyncio.Future[Any]) -> Any:
    try:
        return await future
    except errors.RedisError as error:
        return error
