"""What is asked of a server about all keys, or about other connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..commands.command import Command
from ..commands.scripts import number
from .connection import PipelinedConnection


async def unlink_keys(
    connection: PipelinedConnection,
    pattern: bytes,
    run_all: Callable[[list[Command]], Awaitable[list[Any]]],
) -> None:
    """Deletes a server's keys that match a glob pattern, a batch at a time.

    `run_all` gives the replies to commands, errors as values. Raises redis-py's errors.
    """
    cursor = b"0"
    while True:
        scan = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"1000")
        cursor, keys = await connection.call(scan)
        # One key a command: on a Cluster several must not span slots, each of which may
        # be on its way to another node.
        for reply in await run_all([(b"UNLINK", key) for key in keys]):
            if isinstance(reply, Exception):
                raise reply
        if cursor == b"0":
            return


async def unblock_client(connection: PipelinedConnection, client_id: int) -> bool:
    """Ends the blocking wait of another connection; whether it was waiting."""
    return bool(await connection.call((b"CLIENT", b"UNBLOCK", number(client_id))))
