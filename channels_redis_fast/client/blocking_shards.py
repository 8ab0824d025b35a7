"""All shards of a layer for callers that block: commands, batches, a flush."""

from __future__ import annotations

import time
from typing import Any

from redis import exceptions as errors

from ..commands.command import Command
from ..commands.errors import value_of
from ..commands.retry import Sweep
from ..commands.scripts import key_of
from .blocking_batch import Batch
from .blocking_cluster import BlockingCluster
from .blocking_pool import BlockingPool
from .blocking_shard import BlockingShard
from .cluster_host import ClusterHost
from .host import Host
from .steps import Restore


class BlockingShards:
    """All shards of a layer, for its callers in any thread of this process."""

    def __init__(self, hosts: list[Host], restore: Restore) -> None:
        self.shards = [_make_shard(i, host, restore) for i, host in enumerate(hosts)]

    def run(self, index: int, command: Command, deadline: float) -> Any:
        """The reply to a command; raises errors."""
        (reply,) = self.run_all([(index, command)], deadline)
        return value_of(reply)

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
            cursor, keys = value_of(pool.ask(sweep.scan(cursor), sweep.deadline))
            # One key a command: on a Cluster several must not span slots, each of which
            # may be on its way to another node.
            unlinks = [(index, command) for command in sweep.unlinks(keys)]
            for reply in self.run_all(unlinks, sweep.deadline):
                value_of(reply)
            sweep.get_on(time.monotonic())

    def _first(self, index: int, command: Command, deadline: float) -> Any:
        """The reply to a command at the first attempt; an error as a value."""
        shard = self.shards[index]
        try:
            pool = shard.pool_of(key_of(command), deadline)
        except errors.RedisError as error:
            return error
        reply = pool.ask(command, deadline)
        shard.note(reply)
        return reply


def _make_shard(index: int, host: Host, restore: Restore) -> BlockingShard:
    if isinstance(host, ClusterHost):
        return BlockingCluster(index, host, restore)
    return BlockingShard(index, host, restore)
