"""The shards of a layer for callers that block: commands, batches, retry rules."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from redis import exceptions as errors

from ._hosts import ClusterHost, Host
from ._pipe import Pipe, Pool
from ._scripts import key_of
from ._slots import Address, Topology, share_of
from .client.flights import Flight, fly
from .commands.command import Command
from .commands.errors import is_ask, is_connection_loss, is_demotion
from .commands.retry import Retry, not_overtaken

Key = bytes | str

# Run on each new connection: the shard's index, the connection, whether its server
# owns a key, and until when.
Heal = Callable[[int, Pipe, Callable[[Key], bool], float], None]


class BlockingShard:
    """One entry of `hosts`. `wait` (seconds): how long readers block at a time."""

    longest_wait = 5.0
    is_cluster = False

    def __init__(self, index: int, host: Host, heal: Heal) -> None:
        self.host = host
        self.was_primary = False  # it took a command
        self._index = index
        self._heal = heal
        self._pools: list[Pool] = [Pool(host, self._greet)]

    def pool_of(self, key: Key, deadline: float) -> Pool:
        """The connections to the server of a key; raises redis-py's errors."""
        return self._pools[0]

    def pool_at(self, error: errors.AskError) -> Pool:
        """The connections to where an ASK points."""
        return self._pools[0]

    def primaries(self, deadline: float) -> list[Pool]:
        """The connections to all servers that have keys."""
        return self._pools

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
        for pool in list(self._pools):
            pool.clear()

    def _greet(self, pool: Pool, pipe: Pipe, deadline: float) -> None:
        self._heal(self._index, pipe, lambda key: True, deadline)


class BlockingCluster(BlockingShard):
    """A Cluster. redis-py's own client for it would send again what was written."""

    # A migrating slot leaves a blocked reader deaf until its wait ends.
    longest_wait = 1.0
    is_cluster = True

    host: ClusterHost

    def __init__(self, index: int, host: ClusterHost, heal: Heal) -> None:
        super().__init__(index, host, heal)
        self._pools = []
        self._nodes: dict[Address, Pool] = {}
        self._topology = Topology(host.nodes)
        self._is_known = False

    def pool_of(self, key: Key, deadline: float) -> Pool:
        """The connections to the node that owns the key's slot."""
        if not self._is_known:
            self._look_up(deadline)
        owner = self._topology.owner(key)
        if owner is None:
            self._is_known = False
            text = f"CLUSTERDOWN no node of {self.host} serves the slot of {key!r}"
            raise errors.ClusterDownError(text)
        return self._node(owner)

    def pool_at(self, error: errors.AskError) -> Pool:
        """The connections to where an ASK points."""
        return self._node((error.host, error.port))

    def primaries(self, deadline: float) -> list[Pool]:
        """The connections to all nodes that have slots."""
        self._look_up(deadline)
        return list(map(self._node, self._topology.owners))

    def learn(self, key: Key, error: Exception) -> None:
        """As a `BlockingShard`'s; the slots are looked up again if a node is lost."""
        if isinstance(error, errors.MovedError):
            self._topology.correct(error)
        elif isinstance(error, errors.ClusterDownError):
            self._topology.doubt(self._topology.owner(key))
            self._is_known = False
        elif is_demotion(error) or is_connection_loss(error):
            owner = self._topology.owner(key)
            if owner is not None:
                self._node(owner).clear()
            self._is_known = False

    def close(self) -> None:
        """Closes the connections that nobody uses now."""
        for pool in list(self._nodes.values()):
            pool.clear()

    def _node(self, address: Address) -> Pool:
        pool = self._nodes.get(address)
        if pool is None:
            # Of two threads that come here at once, one's is used by both.
            made = Pool(self.host.node(*address), self._greet)
            pool = self._nodes.setdefault(address, made)
        return pool

    def _greet(self, pool: Pool, pipe: Pipe, deadline: float) -> None:
        def owns(key: Key) -> bool:
            owner = self._topology.owner(key)
            return owner is not None and self._nodes.get(owner) is pool

        self._heal(self._index, pipe, owns, deadline)

    def _look_up(self, deadline: float) -> None:
        """Asks the nodes for the slots, those first that were heard of last."""
        up = [address for address, pool in list(self._nodes.items()) if pool.has_idle]
        candidates = self._topology.candidates(up)
        problem: Exception | None = None
        for number, address in enumerate(candidates):
            now = time.monotonic()
            until = now + share_of(deadline - now, len(candidates) - number)
            reply = self._node(address).ask((b"CLUSTER", b"SLOTS"), until)
            if not reply:  # it was forgotten by the Cluster, perhaps
                problem = errors.ClusterDownError("CLUSTERDOWN no node knows of slots")
                continue
            if isinstance(reply, Exception):
                problem = reply
                continue
            self._topology.learn(address, reply)
            self._is_known = True
            for gone in self._nodes.keys() - self._topology.owners:
                if pool := self._nodes.pop(gone, None):  # else another thread did
                    pool.clear()
            return
        if isinstance(problem, errors.ClusterDownError):
            raise problem
        raise errors.ConnectionError(f"{self.host}: {problem}")


class Blocking:
    """All shards of a layer, for its callers in any thread of this process."""

    def __init__(self, hosts: list[Host], heal: Heal) -> None:
        self.shards = [_make_shard(i, host, heal) for i, host in enumerate(hosts)]

    def run(self, index: int, command: Command, deadline: float) -> Any:
        """The reply to a command; raises errors."""
        (reply,) = self.run_all([(index, command)], deadline)
        if isinstance(reply, Exception):
            raise reply
        return reply

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

    def unlink(self, pattern: bytes, deadline: float) -> None:
        """Deletes the keys that match a glob pattern, on all servers."""
        for shard in self.shards:
            retry = Retry((b"UNLINK", pattern), time.monotonic(), deadline)
            while not self._unlink(shard, pattern, retry):
                pass

    def _unlink(self, shard: BlockingShard, pattern: bytes, retry: Retry) -> bool:
        try:
            for pool in shard.primaries(retry.deadline):
                _unlink(pool, pattern, retry.deadline)
        except errors.RedisError as error:
            pause = retry.after(error, time.monotonic())
            if pause is None:
                raise
            shard.learn(pattern, error)
            time.sleep(pause)
            return False
        return True

    def close(self) -> None:
        """Closes the connections that nobody uses now; the next call opens others."""
        for shard in self.shards:
            shard.close()

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
        by_pool: dict[Pool, list[int]] = {}
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

    def _pool(self, position: int) -> Pool:
        shard, retry = self._shards[position], self._retries[position]
        if is_ask(retry.error):
            # This once: the slot is on its way, its other keys are where they were.
            return shard.pool_at(retry.error)
        return shard.pool_of(key_of(retry.command), self._deadline)

    def _asks(self, position: int) -> bool:
        return is_ask(self._retries[position].error)


def _unlink(pool: Pool, pattern: bytes, deadline: float) -> None:
    cursor = b"0"
    while True:
        scan = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", 1000)
        cursor, keys = _call(pool, [scan], deadline)[0]
        # One key a command: on a Cluster several must not span slots.
        _call(pool, [(b"UNLINK", key) for key in keys], deadline)
        if cursor == b"0":
            return


def _call(pool: Pool, commands: list[Command], deadline: float) -> list[Any]:
    flight = Flight(pool, commands)
    if commands:
        fly([flight], deadline)
    for reply in flight.replies:
        if isinstance(reply, Exception):
            raise reply
    return flight.replies


def _make_shard(index: int, host: Host, heal: Heal) -> BlockingShard:
    if isinstance(host, ClusterHost):
        return BlockingCluster(index, host, heal)
    return BlockingShard(index, host, heal)
