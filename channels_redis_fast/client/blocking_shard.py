"""One entry of `hosts` for callers that block: its servers, and their connections."""

from __future__ import annotations

from typing import Any

from redis import exceptions as errors

from ..commands.errors import is_connection_loss, is_demotion, may_pass
from .blocking_pool import BlockingConnection, BlockingPool
from .host import Host
from .steps import Restore, run_steps_blocking
from .topology import Topology

Key = bytes | str


class BlockingShard:
    """One entry of `hosts`; readers block for `longest_wait` (seconds) at a time."""

    longest_wait = 5.0
    is_cluster = False
    topology: Topology | None = None  # of a Cluster

    def __init__(self, index: int, host: Host, restore: Restore) -> None:
        self.host = host
        self.was_primary = False  # it took a command
        self.state = "unused"  # by the last command; as in `HostStats`
        self._index = index
        self._restore = restore
        self._pools: dict[Any, BlockingPool] = {None: BlockingPool(host, self._greet)}

    def pool_of(self, key: Key, deadline: float) -> BlockingPool:
        """The connections to the server of a key; raises redis-py's errors."""
        return self._pools[None]

    def pool_at(self, error: errors.AskError) -> BlockingPool:
        """The connections to where an ASK points."""
        return self._pools[None]

    def primaries(self, deadline: float) -> list[BlockingPool]:
        """The connections to all servers that have keys."""
        return list(self._pools.values())

    def note(self, reply: Any) -> None:
        """Notes what came of a command: a reply, or an error as a value."""
        if not isinstance(reply, Exception):
            self.was_primary, self.state = True, "up"
        elif is_connection_loss(reply):
            self.state = "down"
        elif may_pass(reply):
            self.state = "refusing"

    @property
    def is_stranger(self) -> bool:
        """Whether nothing says that the server is, or was, a primary."""
        return not self.was_primary and not self.host.finds_primary

    def learn(self, key: Key, error: Exception) -> None:
        """Draws conclusions from an error before the next attempt."""
        if is_demotion(error) or is_connection_loss(error):
            self.close()

    def close(self) -> None:
        """Closes the connections that nobody uses now."""
        for pool in list(self._pools.values()):
            pool.clear()

    def _greet(
        self, pool: BlockingPool, pipe: BlockingConnection, deadline: float
    ) -> None:
        steps = self._restore(self._index, lambda key: True, False)
        run_steps_blocking(steps, pipe, deadline)
