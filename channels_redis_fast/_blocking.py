"""The shards of a layer for callers that block: commands, batches, retry rules."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from redis import exceptions as errors

from ._connection import Command
from ._hosts import ClusterHost, Host
from ._pipe import Pipe, Pool
from ._rules import is_ask, is_connection_loss, is_demotion, remedy, retriable
from ._scripts import key_of, with_text
from ._slots import Address, Topology, share_of

Key = bytes | str

# Run on each new connection: the shard's index, the connection, whether its server
# owns a key, and until when.
Heal = Callable[[int, Pipe, Callable[[Key], bool], float], None]


class BlockingShard:
    """One entry of `hosts`. `wait` (seconds): how long readers block at a time."""

    longest_wait = 5.0

    def __init__(self, index: int, host: Host, heal: Heal) -> None:
        self.host = host
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

    def redirected(self, error: Exception) -> bool:
        """Whether the error says where to go instead."""
        return False

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

    def redirected(self, error: Exception) -> bool:
        """Whether it is a MOVED or ASK."""
        return isinstance(error, errors.AskError)  # and MovedError, which is one

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


class Flight:
    """Commands for one server, written together; `replies` has errors as values."""

    def __init__(self, pool: Pool, commands: list[Command]) -> None:
        self.pool = pool
        self.replies: list[Any] = []
        self.was_written = False
        self._commands = commands
        self._pipe: Pipe | None = None

    def write(self, deadline: float) -> None:
        """Takes a connection and writes the commands."""
        try:
            self._pipe = self.pool.take(deadline)
            self.was_written = True
            self._pipe.write(self._commands, deadline)
        except errors.RedisError as error:
            self._fail(error)

    def read(self, deadline: float) -> None:
        """Reads the replies and gives the connection back."""
        if self._pipe is None:
            return
        try:
            for _ in self._commands:
                self.replies.append(self._pipe.read(deadline))
        except errors.RedisError as error:
            self._fail(error)
        else:
            self.pool.give(self._pipe)
            self._pipe = None

    def end(self) -> None:
        """Gives the connection up if its replies were not read."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _fail(self, error: errors.RedisError) -> None:
        self.end()
        missing = len(self._commands) - len(self.replies)
        self.replies += [error] * missing


def fly(flights: list[Flight], deadline: float) -> None:
    """Writes everything, then reads everything: one round trip."""
    try:
        for flight in flights:
            flight.write(deadline)
        for flight in flights:
            flight.read(deadline)
    finally:
        # An exception may come from anywhere: a signal handler, a greenlet's timeout.
        for flight in flights:
            flight.end()


class Blocking:
    """All shards of a layer, for its callers in any thread of this process."""

    def __init__(self, hosts: list[Host], heal: Heal) -> None:
        self.shards = [_make_shard(i, host, heal) for i, host in enumerate(hosts)]

    def run(
        self, index: int, command: Command, deadline: float, repeat: bool = False
    ) -> Any:
        """The reply to a command; raises errors."""
        (reply,) = self.run_all([(index, command)], deadline, repeat)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def run_all(
        self,
        requests: list[tuple[int, Command]],
        deadline: float,
        repeat: bool = False,
    ) -> list[Any]:
        """The replies, in order, to requests written together; errors as values.

        What can't have had an effect is tried again, together and in order too.
        """
        if len(requests) == 1:  # most calls; a batch would cost more than its trip
            replies = [self._first(*requests[0], deadline)]
            if not isinstance(replies[0], Exception):
                return replies
            batch = Batch(self.shards, requests, repeat, replies)
        else:
            batch = Batch(self.shards, requests, repeat)
            batch.fly(deadline)
        return batch.complete(deadline)

    def unlink(self, pattern: bytes, deadline: float) -> None:
        """Deletes the keys that match a glob pattern, on all servers."""
        for shard in self.shards:
            for pool in shard.primaries(deadline):
                _unlink(pool, pattern, deadline)

    def close(self) -> None:
        """Closes the connections that nobody uses now; the next call opens others."""
        for shard in self.shards:
            shard.close()

    def _first(self, index: int, command: Command, deadline: float) -> Any:
        """The reply to a command at the first attempt; an error as a value."""
        try:
            pool = self.shards[index].pool_of(key_of(command), deadline)
        except errors.RedisError as error:
            return error
        return pool.ask(command, deadline)


class Batch:
    """Requests on their way to their replies, in one round trip or several."""

    def __init__(
        self,
        shards: list[BlockingShard],
        requests: list[tuple[int, Command]],
        repeat: bool,
        replies: list[Any] | None = None,
    ) -> None:
        self.replies = replies or [None] * len(requests)
        self._shards = shards
        self._indices = [index for index, _ in requests]
        self._commands = [command for _, command in requests]
        self._repeat = repeat
        self._todo = list(range(len(requests)))

    def fly(self, deadline: float) -> None:
        """One round trip of what is to be done."""
        by_pool: dict[Pool, list[int]] = {}
        for position in self._todo:
            try:
                by_pool.setdefault(self._pool(position, deadline), []).append(position)
            except errors.RedisError as error:
                self._note(position, error, was_written=False)
        flights = []
        for pool, positions in by_pool.items():
            commands = []
            for position in positions:
                if self._asks(position):
                    commands.append((b"ASKING",))
                commands.append(self._commands[position])
            flights.append(Flight(pool, commands))
        fly(flights, deadline)
        for flight, positions in zip(flights, by_pool.values(), strict=True):
            replies = iter(flight.replies)
            for position in positions:
                if self._asks(position):
                    next(replies)
                self._note(position, next(replies), flight.was_written)

    def complete(self, deadline: float) -> list[Any]:
        """The replies, when what may be tried again was; sleeps meanwhile."""
        while (pause := self.prepare_again(deadline)) is not None:
            if pause:
                time.sleep(pause)
            self.fly(deadline)
        return self.replies

    def prepare_again(self, deadline: float) -> float | None:
        """Seconds until the next round trip for what failed; None: all is done."""
        failed = [p for p in self._todo if isinstance(self.replies[p], Exception)]
        if not failed:
            return None
        if self._repeat:
            self._todo = failed
        else:  # order counts
            commands = [self._commands[p] for p in self._todo]
            replies = [self.replies[p] for p in self._todo]
            self._todo = [self._todo[i] for i in retriable(commands, replies)]
        pauses = {}
        for position in failed:
            error = self.replies[position]
            shard = self._shards[self._indices[position]]
            shard.learn(key_of(self._commands[position]), error)
            pause = remedy(error, self._repeat, shard.redirected(error))
            if pause is not None and position in self._todo:
                pauses[position] = pause
                if isinstance(error, errors.NoScriptError):
                    self._commands[position] = with_text(self._commands[position])
        self._todo = list(pauses)
        if any(is_connection_loss(self.replies[p]) for p in self._todo):
            self._repeat = False  # once is enough
        pause = max(pauses.values(), default=0.0)
        return pause if pauses and time.monotonic() + pause < deadline else None

    def _pool(self, position: int, deadline: float) -> Pool:
        shard = self._shards[self._indices[position]]
        before = self.replies[position]
        if self._asks(position):
            # This once: the slot is on its way, its other keys are where they were.
            return shard.pool_at(before)
        return shard.pool_of(key_of(self._commands[position]), deadline)

    def _asks(self, position: int) -> bool:
        reply = self.replies[position]
        return isinstance(reply, Exception) and is_ask(reply)

    def _note(self, position: int, reply: Any, was_written: bool) -> None:
        before = self.replies[position]
        if (
            not was_written
            and isinstance(before, Exception)
            and is_demotion(before)
            and is_connection_loss(reply)
        ):
            return  # there may yet be a primary
        self.replies[position] = reply


def _unlink(pool: Pool, pattern: bytes, deadline: float) -> None:
    cursor = b"0"
    while True:
        scan = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"1000")
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
