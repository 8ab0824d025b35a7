"""A Redis Cluster as one shard, for callers that block."""

from __future__ import annotations

import functools
import time
from typing import Any

from redis import exceptions as errors

from ..commands.errors import is_connection_loss, is_demotion
from .blocking_pool import BlockingConnection, BlockingPool
from .blocking_shard import BlockingShard, Key
from .cluster_host import ClusterHost
from .steps import Restore, run_steps_blocking
from .topology import Address, Topology


class BlockingCluster(BlockingShard):
    """A Cluster. redis-py's own client for it would send again what was written."""

    # A migrating slot leaves a blocked reader deaf until its wait ends.
    longest_wait = 1.0
    is_cluster = True

    host: ClusterHost
    topology: Topology

    def __init__(self, index: int, host: ClusterHost, restore: Restore) -> None:
        super().__init__(index, host, restore)
        self._pools = {}  # by address
        self.topology = Topology(host.nodes)
        self._is_known = False

    def pool_of(self, key: Key, deadline: float) -> BlockingPool:
        """The connections to the node that owns the key's slot."""
        if not self._is_known:
            self._look_up(deadline)
        owner = self.topology.owner(key)
        if owner is None:
            self._is_known = False
            text = f"CLUSTERDOWN no node of {self.host} serves the slot of {key!r}"
            raise errors.ClusterDownError(text)
        return self._node(owner)

    def pool_at(self, error: errors.AskError) -> BlockingPool:
        """The connections to where an ASK points."""
        return self._node((error.host, error.port))

    def primaries(self, deadline: float) -> list[BlockingPool]:
        """The connections to all nodes that have slots."""
        self._look_up(deadline)
        return list(map(self._node, self.topology.owners))

    def learn(self, key: Key, error: Exception) -> None:
        """As a `BlockingShard`'s; the slots are looked up again if a node is lost."""
        if isinstance(error, errors.MovedError):
            self._is_known = self.topology.correct(error) and self._is_known
        elif isinstance(error, errors.ClusterDownError):
            self.topology.doubt(self.topology.owner(key))
            self._is_known = False
        elif is_demotion(error) or is_connection_loss(error):
            owner = self.topology.owner(key)
            if owner is not None:
                self._node(owner).clear()
            self._is_known = False

    def _node(self, address: Address) -> BlockingPool:
        pool = self._pools.get(address)
        if pool is None:
            # Of two threads that come here at once, one's is used by both.
            greet = functools.partial(self._greet_at, address)
            made = BlockingPool(self.host.node(*address), greet)
            pool = self._pools.setdefault(address, made)
        return pool

    def _greet_at(
        self, node: Address, _: BlockingPool, pipe: BlockingConnection, deadline: float
    ) -> None:
        for owns, anew in self.topology.claims(node):
            run_steps_blocking(self._restore(self._index, owns, anew), pipe, deadline)

    def _look_up(self, deadline: float) -> None:
        """Asks the nodes for the slots, those first that were heard of last."""
        up = [address for address, pool in list(self._pools.items()) if pool.has_idle]
        none = errors.ClusterDownError("CLUSTERDOWN no node knows of slots")
        problem: Exception | None = None
        for address, seconds, question in self.topology.questions(
            up, lambda: deadline - time.monotonic()
        ):
            until = time.monotonic() + seconds
            reply = self._node(address).ask((b"CLUSTER", b"SLOTS"), until)
            if reply and not isinstance(reply, Exception):
                self._learn(address, reply, question)
                return
            problem = reply or none  # the Cluster forgot it, perhaps
        if isinstance(problem, errors.ClusterDownError):
            raise problem
        raise errors.ConnectionError(f"{self.host}: {problem}")

    def _learn(self, asked: Address, ranges: list[Any], question: int) -> None:
        heirs = self.topology.learn(asked, ranges, question, self._is_gone)
        self._is_known = True
        for heir in heirs:
            self._node(heir).clear()  # the next connection is greeted
        for gone in self._pools.keys() - self.topology.owners:
            if pool := self._pools.pop(gone, None):  # else another thread did
                pool.clear()

    def _is_gone(self, node: Address) -> bool:
        """Whether a node that was in use can't have handed over what it had."""
        pool, stays = self._pools.get(node), node in self.topology.owners
        return pool is not None and not (pool.has_idle and stays)
