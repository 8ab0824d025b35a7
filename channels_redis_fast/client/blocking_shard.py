"""The shards of a layer for callers that block: commands, batches, retry rules."""

from __future__ import annotations

import functools
import time
from typing import Any

from redis import exceptions as errors

from ..commands.command import Command
from ..commands.errors import is_ask, is_connection_loss, is_demotion
from ..commands.retry import Retry, Sweep, not_overtaken
from ..commands.scripts import key_of
from .blocking_pool import BlockingConnection, BlockingPool
from .flights import Flight, fly
from .hosts import ClusterHost, Host
from .steps import Restore, run_steps_blocking
from .topology import Address, Topology

Key = bytes | str


class BlockingShard:
    """One entry of `hosts`; readers block for `longest_wait` (seconds) at a time."""

    longest_wait = 5.0
    is_cluster = False

    def __init__(self, index: int, host: Host, restore: Restore) -> None:
        self.host = host
        self.was_primary = False  # it took a command
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


class BlockingCluster(BlockingShard):
    """A Cluster. redis-py's own client for it would send again what was written."""

    # A migrating slot leaves a blocked reader deaf until its wait ends.
    longest_wait = 1.0
    is_cluster = True

    host: ClusterHost

    def __init__(self, index: int, host: ClusterHost, restore: Restore) -> None:
        super().__init__(index, host, restore)
        self._pools = {}  # by address
        self._topology = Topology(host.nodes)
        self._is_known = False

    def pool_of(self, key: Key, deadline: float) -> BlockingPool:
        """The connections to the node that owns the key's slot."""
        if not self._is_known:
            self._look_up(deadline)
        owner = self._topology.owner(key)
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
        return list(map(self._node, self._topology.owners))

    def learn(self, key: Key, error: Exception) -> None:
        """As a `BlockingShard`'s; the slots are looked up again if a node is lost."""
        if isinstance(error, errors.MovedError):
            self._is_known = self._topology.correct(error) and self._is_known
        elif isinstance(error, errors.ClusterDownError):
            self._topology.doubt(self._topology.owner(key))
            self._is_known = False
        elif is_demotion(error) or is_connection_loss(error):
            owner = self._topology.owner(key)
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
        for owns, anew in self._topology.claims(node):
            run_steps_blocking(self._restore(self._index, owns, anew), pipe, deadline)

    def _look_up(self, deadline: float) -> None:
        """Asks the nodes for the slots, those first that were heard of last."""
        up = [address for address, pool in list(self._pools.items()) if pool.has_idle]
        none = errors.ClusterDownError("CLUSTERDOWN no node knows of slots")
        problem: Exception | None = None
        for address, seconds, question in self._topology.questions(
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
        heirs = self._topology.learn(asked, ranges, question, self._is_gone)
        self._is_known = True
        for heir in heirs:
            self._node(heir).clear()  # the next connection is greeted
        for gone in self._pools.keys() - self._topology.owners:
            if pool := self._pools.pop(gone, None):  # else another thread did
                pool.clear()

    def _is_gone(self, node: Address) -> bool:
        """Whether a node that was in use can't have handed over what it had."""
        pool, stays = self._pools.get(node), node in self._topology.owners
        return pool is not None and not (pool.has_idle and stays)


class Blocking:
    """All shards of a layer, for its callers in any thread of this process."""

    def __init__(self, hosts: list[Host], restore: Restore) -> None:
        self.shards = [_make_shard(i, host, restore) for i, host in enumerate(hosts)]

    def run(self, index: int, command: Command, deadline: float) -> Any:
        """The reply to a command; raises errors."""
        (reply,) = self.run_all([(index, command)], deadline)
        return _value(reply)

    def run_all(
        self, requests: list[tuple[int, Command]], deadline: float
    ) -> list[Any]:
        """The replies, in order, to requests written together; errors as values.

        What may be tried again is, together and in order too.
        """
        if len(requests) == 1:  # most calls; a batch would cost more than its trip
            replies = [self._first(*requests[0], deadline)]
            if not isinstance(replies[0], Exception):
                return replies
            batch = Batch(self.shards, requests, deadline, replies)
        else:
            batch = Batch(self.shards, requests, deadline)
            batch.fly()
        return batch.complete()

    def unlink(self, pattern: bytes, seconds: float) -> None:
        """Deletes the keys that match a glob pattern, for as long as it gets on.

        That has so many seconds for each portion. After an error that passes all is
        tried again, as a call is; others are raised.
        """
        for index, shard in enumerate(self.shards):
            sweep = Sweep(pattern, time.monotonic(), seconds)
            while (pause := self._unlink(index, shard, sweep)) is not None:
                time.sleep(pause)

    def close(self) -> None:
        """Closes the connections that nobody uses now; the next call opens others."""
        for shard in self.shards:
            shard.close()

    def _unlink(self, index: int, shard: BlockingShard, sweep: Sweep) -> float | None:
        """Seconds until all is to be tried again; None: all is done."""
        try:
            for pool in shard.primaries(sweep.deadline):
                self._unlink_at(index, pool, sweep)
        except errors.RedisError as error:
            about = {"stranger": shard.is_stranger, "is_cluster": shard.is_cluster}
            shard.learn(sweep.pattern, error)
            return sweep.after(error, time.monotonic(), **about)
        return None

    def _unlink_at(self, index: int, pool: BlockingPool, sweep: Sweep) -> None:
        cursor = b""
        while cursor != b"0":
            cursor, keys = _value(pool.ask(sweep.scan(cursor), sweep.deadline))
            # One key a command: on a Cluster several must not span slots, each of which
            # may be on its way to another node.
            unlinks: list[tuple[int, Command]] = [(index, (b"UNLINK", k)) for k in keys]
            for reply in self.run_all(unlinks, sweep.deadline):
                _value(reply)
            sweep.get_on(time.monotonic())

    def _first(self, index: int, command: Command, deadline: float) -> Any:
        """The reply to a command at the first attempt; an error as a value."""
        shard = self.shards[index]
        try:
            pool = shard.pool_of(key_of(command), deadline)
        except errors.RedisError as error:
            return error
        reply = pool.ask(command, deadline)
        if not isinstance(reply, Exception):
            shard.was_primary = True
        return reply


class Batch:
    """Requests on their way to their replies, in one round trip or several."""

    def __init__(
        self,
        shards: list[BlockingShard],
        requests: list[tuple[int, Command]],
        deadline: float,
        replies: list[Any] | None = None,
    ) -> None:
        now = time.monotonic()
        self.replies = replies or [None] * len(requests)
        self._shards = [shards[index] for index, _ in requests]
        self._retries = [Retry(command, now, deadline) for _, command in requests]
        self._deadline = deadline
        self._todo = list(range(len(requests)))
        self._unwritten: set[int] = set()

    def fly(self) -> None:
        """One round trip of what is to be done."""
        by_pool: dict[BlockingPool, list[int]] = {}
        self._unwritten.clear()
        for position in self._todo:
            try:
                by_pool.setdefault(self._pool(position), []).append(position)
            except errors.RedisError as error:
                self.replies[position] = error
                self._unwritten.add(position)
        flights = []
        for pool, positions in by_pool.items():
            commands = []
            for position in positions:
                if self._asks(position):
                    commands.append((b"ASKING",))
                commands.append(self._retries[position].command)
            flights.append(Flight(pool, commands))
        fly(flights, self._deadline)
        for flight, positions in zip(flights, by_pool.values(), strict=True):
            replies = iter(flight.replies)
            for position in positions:
                if self._asks(position):
                    next(replies)
                self.replies[position] = next(replies)
            if not flight.was_written:
                self._unwritten.update(positions)

    def complete(self) -> list[Any]:
        """The replies, when what may be tried again was; sleeps meanwhile."""
        while (pause := self.prepare_again()) is not None:
            if pause:
                time.sleep(pause)
            self.fly()
        return self.replies

    def prepare_again(self) -> float | None:
        """Seconds until the next round trip for what failed; None: all is done."""
        for position in self._todo:
            if not isinstance(self.replies[position], Exception):
                self._shards[position].was_primary = True
        commands = [self._retries[p].command for p in self._todo]
        keep = not_overtaken(commands, [self.replies[p] for p in self._todo])
        pauses = {}
        for position in [self._todo[i] for i in keep]:
            pause = self._pause(position)
            if pause is not None:
                pauses[position] = pause
        self._todo = list(pauses)
        return max(pauses.values(), default=None)

    def _pause(self, position: int) -> float | None:
        """Seconds until a command that failed is tried again; None: its error stays."""
        error, retry = self.replies[position], self._retries[position]
        shard = self._shards[position]
        shard.learn(key_of(retry.command), error)
        pause = retry.after(
            error,
            time.monotonic(),
            written=position not in self._unwritten,
            stranger=shard.is_stranger,
            is_cluster=shard.is_cluster,
        )
        if pause is None:
            self.replies[position] = retry.error or error
        return pause

    def _pool(self, position: int) -> BlockingPool:
        shard, retry = self._shards[position], self._retries[position]
        if is_ask(retry.error):
            # This once: the slot is on its way, its other keys are where they were.
            return shard.pool_at(retry.error)
        return shard.pool_of(key_of(retry.command), self._deadline)

    def _asks(self, position: int) -> bool:
        return is_ask(self._retries[position].error)


def _value(reply: Any) -> Any:
    """A reply; raises it if it is an error."""
    if isinstance(reply, Exception):
        raise reply
    return reply


def _make_shard(index: int, host: Host, restore: Restore) -> BlockingShard:
    if isinstance(host, ClusterHost):
        return BlockingCluster(index, host, restore)
    return BlockingShard(index, host, restore)
