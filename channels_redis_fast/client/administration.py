"""What is asked of a server about all keys, or about other connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import monotonic
from typing import Any, Protocol, TypeVar

from redis import exceptions as errors

from ..commands.command import Command
from ..commands.errors import unanswered, value_of
from ..commands.retry import Sweep
from ..commands.scripts import number
from .connection import PipelinedConnection
from .reconnecting import ReconnectingConnection
from .timeouts import timeout

T = TypeVar("T")


class Keyspace(Protocol):
    """The servers of one shard."""

    command_timeout: float
    is_cluster: bool

    async def primaries(self) -> list[ReconnectingConnection]:
        """Where keys are; raises redis-py's errors if nobody knows."""

    async def run_all(self, commands: list[Command], began: float) -> list[Any]:
        """The replies to commands; an error stands in its place."""

    def is_stranger(self) -> bool:
        """Whether nothing says that the server is, or was, a primary."""

    def note(self, error: Exception) -> None:
        """Draws conclusions from an error before all is tried again."""


async def unlink_keys(shard: Keyspace, pattern: bytes) -> None:
    """Deletes the keys that match a glob pattern, for as long as it gets on.

    After an error that passes all is tried again, as a call is; others are raised.
    """
    sweep = Sweep(pattern, monotonic(), shard.command_timeout)
    while True:
        try:
            for link in await _in_time(shard, sweep, shard.primaries()):
                await _unlink_at(shard, link, sweep)
            return
        except errors.RedisError as error:
            about = {"stranger": shard.is_stranger(), "is_cluster": shard.is_cluster}
            pause = sweep.after(error, monotonic(), **about)
            shard.note(error)
        await asyncio.sleep(pause)


async def _unlink_at(
    shard: Keyspace, link: ReconnectingConnection, sweep: Sweep
) -> None:
    connection, cursor = await _in_time(shard, sweep, link.get()), b""
    while cursor != b"0":
        scanning = connection.call(sweep.scan(cursor))
        cursor, keys = await _in_time(shard, sweep, scanning)
        # One key a command: on a Cluster several must not span slots, each of which may
        # be on its way to another node.
        unlinks = sweep.unlinks(keys)
        for reply in await shard.run_all(unlinks, sweep.began):
            value_of(reply)
        sweep.get_on(monotonic())


async def _in_time(shard: Keyspace, sweep: Sweep, work: Awaitable[T]) -> T:
    """The result of a step of a portion, which is to be done by its deadline."""
    try:
        async with timeout(sweep.deadline - monotonic()):
            return await work
    except asyncio.TimeoutError:
        raise unanswered(shard.command_timeout) from None


async def unblock_client(connection: PipelinedConnection, client_id: int) -> bool:
    """Ends the blocking wait of another connection; whether it was waiting."""
    return bool(await connection.call((b"CLIENT", b"UNBLOCK", number(client_id))))
