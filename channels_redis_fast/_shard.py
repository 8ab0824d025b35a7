"""One entry of `hosts` seen from one event loop: run commands, wait, retry rules."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from redis import exceptions as errors

from ._connection import Command, PipelinedConnection, Push, open_connection
from ._hosts import Host
from ._link import Link
from ._rules import is_connection_loss, is_demotion, remedy, retriable
from ._scripts import key_of, number, with_text

T = TypeVar("T")

logger = logging.getLogger("channels_redis_fast")

# What a shard calls on each new connection for commands, before any caller gets it:
# (shard index, connection, whether this connection's server owns a key).
Heal = Callable[
    [int, PipelinedConnection, Callable[[bytes | str], bool]], Awaitable[None]
]


class Shard:
    """A single server, or the primary that Sentinels name.

    `wait` is how long (seconds) its readers block at a time.
    """

    wait: float = 5.0

    def __init__(
        self, index: int, host: Host, command_timeout: float, heal: Heal
    ) -> None:
        self.index = index
        self.host = host
        self.command_timeout = command_timeout
        self.closed = False
        self._heal = heal
        self._loop = asyncio.get_running_loop()
        self._links: set[Link] = set()
        self._down: set[Link] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._client: Any = None
        self._main = self._new_link(lambda: self._open(self.host), self._greet)

    @property
    def is_down(self) -> bool:
        """Whether a connection was lost, and is not back yet."""
        return bool(self._down)

    # What readers, groups and the layers use

    async def run(self, command: Command, *, repeat: bool = False) -> Any:
        """The reply to a command; `repeat` says that running it twice is harmless.

        Raises redis-py's `ConnectionError` when the connection breaks or is not
        there, and what Redis answers; NOSCRIPT and errors that pass are retried.
        """
        try:
            connection = self._ready(command) or await self._connection(command)
            return await connection.call(command)
        except errors.RedisError as error:
            return await self._run_again(command, error, repeat)

    async def run_all(
        self, commands: list[Command], *, repeat: bool = False
    ) -> list[Any]:
        """The replies to commands written together; an error stands in its place."""
        replies = await self._call_all(commands)
        failed = [i for i, r in enumerate(replies) if isinstance(r, errors.RedisError)]
        if failed:
            again = [self._run_again(commands[i], replies[i], repeat) for i in failed]
            outcomes = await asyncio.gather(*again, return_exceptions=True)
            for i, outcome in zip(failed, outcomes, strict=True):
                replies[i] = outcome
        return replies

    async def run_in_order(self, commands: list[Command]) -> list[Any]:
        """As `run_all`; those for one key stay in their order when tried again."""
        replies = await self._call_all(commands)
        chains: dict[bytes | str, list[int]] = {}
        for position in retriable(commands, replies):
            if isinstance(replies[position], errors.RedisError):
                key = key_of(commands[position])
                chains.setdefault(key, []).append(position)

        async def run_again(chain: list[int]) -> None:
            for position in chain:
                command, error = commands[position], replies[position]
                try:
                    replies[position] = await self._run_again(command, error, False)
                except errors.RedisError as later:
                    replies[position] = later
                    return  # the others' time is over, too

        await asyncio.gather(*map(run_again, chains.values()))
        return replies

    # For those who don't wait for replies

    def post(self, command: Command, receipt: Any) -> bool | None:
        """Queues a command whose outcome a receipt takes; None when nothing takes it.

        As `PipelinedConnection.post`.
        """
        connection = self._ready(command)
        if connection is None:
            return None
        if command[0] == b"EVALSHA" and command[1] not in connection.scripts:
            # Found missing later, the script would let others overtake this one.
            connection.scripts.add(command[1])
            command = with_text(command)
        return connection.post(receipt, command)

    async def prepare(self, command: Command) -> None:
        """Returns when a connection takes a command; raises `ConnectionError`."""
        await self._connection(command)

    def is_retried(self, error: errors.RedisError, repeat: bool) -> bool:
        """Whether `run` would try again."""
        return remedy(error, repeat, self._redirected(error)) is not None

    async def rerun(
        self, command: Command, error: errors.RedisError | None, repeat: bool
    ) -> Any:
        """As `run`, for a command that got an error, or was not written."""
        if error is None:
            return await self.run(command, repeat=repeat)
        return await self._run_again(command, error, repeat)

    # Links, and what else there is of a host

    def reader_link(
        self,
        key: bytes,
        greet: Callable[[PipelinedConnection], Awaitable[None]],
        on_ready: Callable[[], None],
        on_down: Callable[[Exception], None],
    ) -> Link:
        """A link of its own for a reader, whose blocking waits hold up the pipe."""
        deadline = self.wait + self.command_timeout

        async def open_() -> PipelinedConnection:
            return await open_connection(await self._host_of(key), deadline=deadline)

        return self._new_link(open_, greet, on_ready, on_down, eager=True)

    def push_link(
        self,
        node: Any,
        on_push: Push,
        greet: Callable[[PipelinedConnection], Awaitable[None]],
        on_ready: Callable[[], None],
        on_down: Callable[[Exception], None],
    ) -> Link:
        """A link of its own for subscriptions at a node that `node_of` named."""
        host, deadline = self._host_at(node), self.command_timeout

        async def open_() -> PipelinedConnection:
            return await open_connection(host, deadline=deadline, on_push=on_push)

        return self._new_link(open_, greet, on_ready, on_down, eager=True)

    async def node_of(self, key: bytes, *, anew: bool = False) -> Any:
        """Which of its servers a key is on; `anew`: don't trust what was known."""
        return None

    async def close_link(self, link: Link) -> None:
        """Ends a link that `reader_link` or `push_link` gave."""
        self._links.discard(link)
        self._down.discard(link)
        await link.aclose()

    async def unblock(self, key: bytes, client_id: int) -> bool:
        """Ends the blocking wait of a connection; whether it was waiting."""
        return await unblock_client(await self._main.get(), client_id)

    def watch(self, key: bytes, moved: Callable[[], None] | None) -> None:
        """Has `moved` called when a sender finds `key` elsewhere, in a Cluster."""

    async def redirect(self, key: bytes, error: errors.RedisError) -> bool:
        """Learns from an error that a reader got; whether to read elsewhere now."""
        return False

    async def unlink(self, pattern: bytes) -> None:
        """Deletes the keys that match a glob pattern; raises what Redis answers."""
        await unlink_keys(await self._main.get(), pattern)

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
        links, self._links = self._links, set()
        self._down.clear()
        await asyncio.gather(*(link.aclose() for link in links))
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    # Where a command goes: a Cluster has its own answers

    def _ready(self, command: Command) -> PipelinedConnection | None:
        connection = self._main.connection
        return None if connection is None or connection.paused else connection

    async def _connection(self, command: Command) -> PipelinedConnection:
        return await self._main.get()

    async def _host_of(self, key: bytes) -> Host:
        return self.host

    def _host_at(self, node: Any) -> Host:
        return self.host

    def _redirected(self, error: errors.RedisError) -> bool:
        """Whether the error says where to go instead."""
        return False

    # Retry rules

    async def _call_all(self, commands: list[Command]) -> list[Any]:
        """The outcome of each command's first attempt.

        All that can be written is, before those that have to wait for a connection: a
        node of a Cluster that is away holds up nobody but its own.
        """
        futures = list(map(self._call_or_wait, commands))
        try:
            return [await _outcome(future) for future in futures]
        except BaseException:  # a cancellation: nobody will ask for the others
            for future in futures:
                if not future.cancel() and not future.cancelled():
                    future.exception()  # has been seen
            raise

    def _call_or_wait(self, command: Command) -> asyncio.Future[Any]:
        connection = self._ready(command)
        if connection is not None:
            return connection.call(command)
        return self._loop.create_task(self._wait_and_call(command))

    async def _wait_and_call(self, command: Command) -> Any:
        return await (await self._connection(command)).call(command)

    async def _run_again(
        self, command: Command, error: errors.RedisError, repeat: bool
    ) -> Any:
        """Retries what can't have had an effect, until the call's deadline."""
        deadline = self._loop.time() + self.command_timeout
        while True:
            pause = remedy(error, repeat, self._redirected(error))
            if pause is None or self._loop.time() + pause > deadline:
                raise error
            if isinstance(error, errors.NoScriptError):
                command = with_text(command)
            elif is_demotion(error):
                self._drop(command, error)
            elif is_connection_loss(error):
                repeat = False  # once is enough: back-off must not block callers
            await asyncio.sleep(pause)
            try:
                return await self._call_after(error, command)
            except errors.RedisError as later:
                error = later

    async def _call_after(self, error: errors.RedisError, command: Command) -> Any:
        try:
            connection = await self._connection(command)
        except errors.ConnectionError:
            if is_demotion(error):
                raise error from None  # nothing was written: there may yet be a primary
            raise
        return await connection.call(command)

    def _drop(self, command: Command, error: errors.RedisError) -> None:
        """Gives up the connection to a server that is no primary any more."""
        # The first caller of a batch finds the connection; by the time there is a new
        # one the others have been here too.
        connection = self._ready(command)
        if connection is not None:
            connection.abort(error)

    # Links and tasks

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("in the background, with %s: %s", self.host, error)

    def _new_link(
        self,
        open_: Callable[[], Awaitable[PipelinedConnection]],
        greet: Callable[[PipelinedConnection], Awaitable[None]],
        on_ready: Callable[[], None] | None = None,
        on_down: Callable[[Exception], None] | None = None,
        eager: bool = False,
    ) -> Link:
        def ready() -> None:
            self._log_back(link)
            if on_ready is not None:
                on_ready()

        def down(error: Exception) -> None:
            self._log_down(link, error)
            if on_down is not None:
                on_down(error)

        link = Link(open_, greet=greet, on_ready=ready, on_down=down, eager=eager)
        self._links.add(link)
        return link

    async def _open(self, host: Host) -> PipelinedConnection:
        return await open_connection(host, deadline=self.command_timeout)

    async def _greet(self, connection: PipelinedConnection) -> None:
        await self._heal(self.index, connection, lambda key: True)

    def _log_down(self, link: Link, error: Exception) -> None:
        if not self._down:
            logger.warning("Redis at %s is gone: %s", self.host, error)
        self._down.add(link)

    def _log_back(self, link: Link) -> None:
        if link in self._down:
            self._down.discard(link)
            if not self._down:
                logger.warning("Redis at %s is back", self.host)


async def _outcome(future: asyncio.Future[Any]) -> Any:
    try:
        return await future
    except errors.RedisError as error:
        return error


async def unblock_client(connection: PipelinedConnection, client_id: int) -> bool:
    """Ends the blocking wait of another connection; whether it was waiting."""
    return bool(await connection.call((b"CLIENT", b"UNBLOCK", number(client_id))))


async def unlink_keys(connection: PipelinedConnection, pattern: bytes) -> None:
    """Deletes a server's keys that match a glob pattern, a batch at a time."""
    cursor = b"0"
    while True:
        scan = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"1000")
        cursor, keys = await connection.call(scan)
        # One key a command: on a Cluster several must not span slots.
        await asyncio.gather(*(connection.call((b"UNLINK", key)) for key in keys))
        if cursor == b"0":
            return
