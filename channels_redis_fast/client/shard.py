"""One entry of `hosts` seen from one event loop: a server, and where its keys are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis import exceptions as errors

from ..commands.command import Command
from ..commands.errors import is_demotion
from .administration import unblock_client, unlink_keys
from .backlog import Call
from .connection import PipelinedConnection
from .host import Host
from .reconnecting import ReconnectingConnection
from .shard_commands import ShardCommands
from .steps import Restore, run_steps
from .topology import Topology


class Shard(ShardCommands):
    """A single server, or the primary that Sentinels name."""

    topology: Topology | None = None  # of a Cluster

    def __init__(
        self, index: int, host: Host, command_timeout: float, restore: Restore
    ) -> None:
        super().__init__(host, command_timeout)
        self.index = index
        self._restore = restore
        self._main = self._command_link(lambda: self._open(self.host), self._greet)

    # Where a key is: a Cluster has its own answers

    async def node_of(self, key: bytes, *, anew: bool = False) -> Any:
        """Which of its servers a key is on; `anew`: don't trust what was known."""
        return None

    async def look_up(self) -> None:
        """Asks anew which of its servers has what, where there are several."""

    def place_of(self, key: bytes) -> tuple[int, Any] | None:
        """Its index and the server that has a key, as far as is known; None: nobody."""
        return self.index, None

    async def primaries(self) -> list[ReconnectingConnection]:
        """The links to all servers that have keys; raises redis-py's errors."""
        return list((await self.links()).values())

    async def links(self) -> dict[Any, ReconnectingConnection]:
        """The same, by what `host_at` takes."""
        return {None: self._main}

    def is_stranger(self) -> bool:
        """Whether nothing says that the server is, or was, a primary."""
        return not self._main.is_heard and not self.host.finds_primary

    # For readers

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

    # All keys

    async def unlink(self, pattern: bytes) -> None:
        """Deletes the keys that match a glob pattern; raises what Redis answers."""
        await unlink_keys(self, pattern)

    def note(self, error: Exception) -> None:
        """Draws conclusions from an error before all servers are asked again."""
        if is_demotion(error):
            self.follow_primary(error)
        self._note_refusal(error)

    # Steps

    def _ready(self, command: Command) -> PipelinedConnection | None:
        """The connection that takes a command now; None if others come first."""
        return self._usable(self._main, command)

    def _link_of(self, call: Call) -> ReconnectingConnection | None:
        """Where a call that waits goes; None: not known yet."""
        return self._main

    async def _greet(self, connection: PipelinedConnection) -> None:
        await run_steps(self._restore(self.index, lambda key: True, False), connection)
