"""The shards of a layer for callers that block: commands, batches, retry rules."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from redis import exceptions as errors

from ._connection import Command
from ._hosts import ClusterHost, Host
from ._pipe import Pipe, Pool
from ._rules import is_ask, is_connection_loss, is_demotion, remedy, retriable
from ._scripts import key_of, with_text
from ._slots import Address, Topology

Key = bytes | str

# Run on each new connection: the shard's index, the connection, whether its server
# owns a key, and has come by it since what is known of its history, and until when.
Heal = Callable[[int, Pipe, Callable[[Key], bool], bool, float], None]


class BlockingShard:
    """One entry of `hosts`. `wait` (seconds): how long readers block at a time."""

    longest_wait = 5.0

    def __init__(self, index: int, host: Host, heal: Heal) -> None:
        self.host = host
        self._index = index
        self._heal = heal
        self._pools: dict[Any, Pool] = {None: Pool(host, self._greet)}

    def pool_of(self, key: Key, deadline: float) -> Pool:
        """The connections to the server of a key; raises redis-py's errors."""
        return self._pools[None]

    def pool_at(self, error: errors.AskError) -> Pool:
        """The connections to where an ASK points."""
        return self._pools[None]

    def primaries(self, deadline: float) -> list[Pool]:
        """The connections to all servers that have keys."""
        return list(self._pools.values())

    def redirected(self, error: Exception) -> bool:
        """Whether the error says where to go instead."""
        return False

    def learn(self, key: Key, error: Exception) -> None:
        """Draws conclusions from an error before the next attempt."""
        if is_demotion(error) or is_connection_loss(error):
            self.close()

    def close(self) -> None:
        """Closes the connections that nobody uses now."""
        for pool in list(self._pools.values()):
            pool.clear()

    def _greet(self, pool: Pool, pipe: Pipe, deadline: float) -> None:
        self._heal(self._index, pipe, lambda key: True, False, deadline)


class BlockingCluster(BlockingShard):
    """A Cluster. redis-py's own client for it would send again what was written."""

    # A migrating slot leaves a blocked reader deaf until its wait ends.
    longest_wait = 1.0

    host: ClusterHost

    def __init__(self, index: int, host: ClusterHost, heal: Heal) -> None:
        super().__init__(index, host, heal)
        self._pools = {}  # by address
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
            self._is_known = self._topology.correct(error) and self._is_known
        elif isinstance(error, errors.ClusterDownError):
            self._topology.doubt(self._topology.owner(key))
            self._is_known = False
        elif is_demotion(error) or is_connection_loss(error):
            owner = self._topology.owner(key)
            if owner is not None:
                self._node(owner).clear()
            self._is_known = False

    def _node(self, address: Address) -> Pool:
        pool = self._pools.get(address)
        if pool is None:
            # Of two threads that come here at once, one's is used by both.
            greet = functools.partial(self._greet_at, address)
            made = Pool(self.host.node(*address), greet)
            pool = self._pools.setdefault(address, made)
        return pool

    def _greet_at(self, node: Address, _: Pool, pipe: Pipe, deadline: float) -> None:
        for owns, anew in self._topology.claims(node):
            self._heal(self._index, pipe, owns, anew, deadline)

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
        return _value(reply)

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
        for index, shard in enumerate(self.shards):
            for pool in shard.primaries(deadline):
                self._unlink_at(index, pool, pattern, deadline)

    def close(self) -> None:
        """Closes the connections that nobody uses now; the next call opens others."""
        for shard in self.shards:
            shard.close()

    def _unlink_at(
        self, index: int, pool: Pool, pattern: bytes, deadline: float
    ) -> None:
        cursor = b"0"
        while True:
            scan = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", 1000)
            cursor, keys = _value(pool.ask(scan, deadline))
            # One key a command: on a Cluster several must not span slots, each of which
            # may be on its way to another node.
            unlinks: list[tuple[int, Command]] = [(index, (b"UNLINK", k)) for k in keys]
            for reply in self.run_all(unlinks, deadline, repeat=True):
                _value(reply)
            if cursor == b"0":
                return

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


def _value(reply: Any) -> Any:
    """A reply; raises it if it is an error."""
    if isinstance(reply, Exception):
        raise reply
    return reply


def _make_shard(index: int, host: Host, heal: Heal) -> BlockingShard:
    if isinstance(host, ClusterHost):
        return BlockingCluster(index, host, heal)
    return BlockingShard(index, host, heal)
