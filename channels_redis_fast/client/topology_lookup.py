"""Asks the nodes of a Cluster which of them has which slots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Protocol

from redis import exceptions as errors

from .cluster_host import ClusterHost
from .opening import open_connection
from .reconnecting import ReconnectingConnection, pause_after
from .timeouts import timeout
from .topology import Address, Topology


class Asking(Protocol):
    """The shard that wants to know."""

    host: ClusterHost
    command_timeout: float
    closed: bool

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs work that outlives its caller."""


class TopologyLookup:
    """Keeps a `Topology` up to date; asks once for all who ask at the same time.

    `links` are those to the nodes in use. `learn` gets the node that answered, its
    answer and the number of the question; `on_end` is called after each attempt.
    """

    def __init__(
        self,
        shard: Asking,
        topology: Topology,
        links: dict[Address, ReconnectingConnection],
        learn: Callable[[Address, list[Any], int], None],
        on_end: Callable[[], None],
    ) -> None:
        self._shard = shard
        self._topology = topology
        self._links = links
        self._learn = learn
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._asking: asyncio.Task[None] | None = None
        self._problem: Exception | None = None  # why the topology is not known
        self._not_before = 0.0  # when the nodes may be asked again
        self.answered_at = 0.0  # `time.monotonic()`
        self._failures = 0

    @property
    def is_under_way(self) -> bool:
        """Whether an answer is to come."""
        return self._asking is not None

    async def refresh(self) -> None:
        """Returns when the nodes were asked anew, or it is too early for that."""
        self.begin()
        if self._asking is not None:
            await asyncio.wait([self._asking])

    def begin(self) -> None:
        """Asks in the background.

        Not during the pause after nobody answered: callers must not pile up.
        """
        if self._asking is None and not self._shard.closed:
            if self._loop.time() < self._not_before:
                return
            self._asking = self._shard.spawn(self._ask_all())
            self._asking.add_done_callback(self._asked)

    async def owner_of(self, key: bytes | str) -> Address:
        """The node that owns a key's slot; raises redis-py's errors if nobody knows."""
        if self._topology.owner(key) is None:
            await self.refresh()
        return self.known_owner(key)

    def known_owner(self, key: bytes | str) -> Address:
        """The same, as far as is known."""
        owner = self._topology.owner(key)
        if owner is None:
            text = f"no node of {self._shard.host} serves the slot of {key!r}"
            raise self._error(text)
        return owner

    def known_owners(self) -> list[Address]:
        """All nodes that have slots, as far as is known; raises likewise."""
        if self._problem is not None or not self._topology.owners:
            raise self._error(f"no node of {self._shard.host} knows of slots")
        return list(self._topology.owners)

    def _error(self, text: str) -> errors.RedisError:
        if self._problem is not None:
            return errors.ConnectionError(f"{self._shard.host}: {self._problem}")
        return errors.ClusterDownError(f"CLUSTERDOWN {text}")

    async def _ask_all(self) -> None:
        deadline = self._loop.time() + self._shard.host.connect_timeout
        up = [address for address, link in self._links.items() if link.connection]
        for address, seconds, question in self._topology.questions(
            up, lambda: deadline - self._loop.time()
        ):
            if ranges := await self._answer(address, seconds):
                self._problem, self._failures = None, 0
                self.answered_at = monotonic()
                self._learn(address, ranges, question)
                return
        self._failures += 1
        pause = pause_after(self._failures, 0.0)
        self._not_before = self._loop.time() + pause

    def _asked(self, asking: asyncio.Task[None]) -> None:
        """Also of an attempt that was cancelled, maybe before it began."""
        self._asking = None
        self._on_end()

    async def _answer(self, address: Address, seconds: float) -> list[Any]:
        """The slots that a node knows of; none if it doesn't say, or knows of none."""
        try:
            async with timeout(seconds):
                ranges = await self._ask(address)
            # A node without any was forgotten by the Cluster, perhaps.
            self._problem = None
            return ranges
        except asyncio.TimeoutError:
            host = self._shard.host.node(*address)
            self._problem = errors.ConnectionError(f"no answer from {host} in time")
        except (errors.RedisError, OSError) as error:
            self._problem = error
        return []

    async def _ask(self, address: Address) -> list[Any]:
        link = self._links.get(address)
        if link is not None and link.connection is not None:
            return list(await link.connection.call((b"CLUSTER", b"SLOTS")))
        host, deadline = self._shard.host.node(*address), self._shard.command_timeout
        connection = await open_connection(host, deadline=deadline)
        try:
            return list(await connection.call((b"CLUSTER", b"SLOTS")))
        finally:
            await connection.aclose()
