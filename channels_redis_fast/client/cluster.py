"""A Redis Cluster as one shard: its keys go to nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from redis import exceptions as errors

from ..commands.command import Command
from ..commands.errors import Kind, is_ask, kind_of
from ..commands.scripts import key_of
from .administration import unblock_client
from .backlog import Call
from .cluster_host import ClusterHost
from .connection import PipelinedConnection
from .handovers import Handovers
from .host import Host
from .reconnecting import ReconnectingConnection
from .shard import Shard
from .steps import Restore, run_steps
from .topology import Address, Topology
from .topology_lookup import TopologyLookup


class ClusterShard(Shard):
    """The nodes of a Cluster, each with a link of its own, and who owns which slot."""

    # A migrating slot leaves a blocked reader deaf until its wait ends.
    wait = 1.0
    is_cluster = True

    host: ClusterHost
    topology: Topology

    def __init__(
        self, index: int, host: ClusterHost, command_timeout: float, restore: Restore
    ) -> None:
        self.topology = Topology(host.nodes)
        self._nodes: dict[Address, ReconnectingConnection] = {}
        self._asked: dict[bytes, Address] = {}  # where a reader's next link goes
        self._reading: dict[bytes, Address] = {}  # where its last link went
        self._watching: dict[bytes | str, Callable[[], None]] = {}
        super().__init__(index, host, command_timeout, restore)
        self._lookup = TopologyLookup(
            self, self.topology, self._nodes, self._learn, self._backlog.go_on
        )
        self._handovers = Handovers(self.topology, self._nodes, self._backlog)
        self._links.discard(self._main)  # there is no one server

    async def links(self) -> dict[Any, ReconnectingConnection]:
        """The links to all nodes that have slots; raises redis-py's errors."""
        await self._lookup.refresh()
        return {node: self._node(node) for node in self._lookup.known_owners()}

    def watch(self, key: bytes, moved: Callable[[], None]) -> None:
        """Has `moved` called when a sender finds `key` elsewhere, before its wait ends.

        Readers in other processes find out when their waits end.
        """
        self._watching[key] = moved

    def unwatch(self, key: bytes, moved: Callable[[], None]) -> None:
        """Ends it, unless somebody else watches the key by now."""
        if self._watching.get(key) == moved:
            del self._watching[key]
            self._reading.pop(key, None)

    def reader_link(
        self,
        key: bytes,
        greet: Callable[[PipelinedConnection], Awaitable[None]],
        on_ready: Callable[[], None],
        on_down: Callable[[Exception], None],
    ) -> ReconnectingConnection:
        """As `Shard`; who only reads finds the new owner when a node is gone."""

        def down(error: Exception) -> None:
            self._lookup.begin()
            on_down(error)

        return super().reader_link(key, greet, on_ready, down)

    def follow_primary(self, error: Exception) -> None:
        """Nothing: a node that takes over has the data, and callers are redirected."""

    async def redirect(self, key: bytes, error: errors.RedisError) -> bool:
        """Learns where the next wait for `key` goes; whether that is elsewhere."""
        if is_ask(error):
            self._asked[key] = (error.host, error.port)
            return True
        before = self._reading.get(key)
        moved = isinstance(error, errors.MovedError)
        if isinstance(error, errors.MovedError):
            self.topology.correct(error)
            self._handovers.review()
        elif isinstance(error, errors.ClusterDownError):
            self.topology.doubt(before)
        await self._lookup.refresh()
        return moved or self.topology.owner(key) != before

    async def unblock(self, key: bytes, client_id: int) -> bool:
        """Ends the blocking wait of a connection; whether it was waiting."""
        link = self._node(self._reading.get(key) or await self._lookup.owner_of(key))
        return await unblock_client(await link.get(), client_id)

    async def node_of(self, key: bytes, *, anew: bool = False) -> Address:
        """The address of the node that owns a key's slot."""
        if anew:
            await self._lookup.refresh()
        return await self._lookup.owner_of(key)

    async def look_up(self) -> None:
        """Asks the nodes which slots they have."""
        await self._lookup.refresh()

    def place_of(self, key: bytes) -> tuple[int, Address] | None:
        """Its index and the owner of a key's slot; None: nobody, as far as is known."""
        owner = self.topology.owner(key)
        return None if owner is None else (self.index, owner)

    # Where a command goes

    def _ready(self, command: Command) -> PipelinedConnection | None:
        owner = self.topology.owner(key_of(command))
        link = self._nodes.get(owner) if owner else None
        return self._usable(link, command) if link else None

    def _link_of(self, call: Call) -> ReconnectingConnection | None:
        """As `Shard`; raises redis-py's errors if nobody knows."""
        before = call.retry.error
        if is_ask(before):
            # This once: the slot is on its way, its other keys are where they were.
            return self._node((before.host, before.port))
        owner = self.topology.owner(call.key)
        if self._lookup.is_under_way and (owner is None or before is not None):
            return None  # soon: the owner may be another one
        if owner is None:
            # Once for each attempt: a slot that nobody serves may stay so.
            if self._lookup.answered_at < max(call.retry.began, call.not_before):
                self._lookup.begin()
                if self._lookup.is_under_way:
                    return None
            owner = self._lookup.known_owner(call.key)
        return self._node(owner)

    async def _host_of(self, key: bytes) -> Host:
        address = self._asked.pop(key, None) or await self._lookup.owner_of(key)
        self._reading[key] = address
        return self.host.node(*address)

    def host_at(self, node: Address) -> Host:
        """How to reach a node of it."""
        return self.host.node(*node)

    def _node(self, address: Address, *, eager: bool = False) -> ReconnectingConnection:
        link = self._nodes.get(address)
        if link is None:
            host = self.host.node(*address)

            async def open_() -> PipelinedConnection:
                return await self._open(host)

            async def greet(connection: PipelinedConnection) -> None:
                await self._greet_at(address, connection)

            link = self._nodes[address] = self._command_link(
                open_, greet, lambda error: self._lookup.begin(), eager
            )
        return link

    async def _greet_at(
        self, address: Address, connection: PipelinedConnection
    ) -> None:
        for owns, anew in self.topology.claims(address):
            await run_steps(self._restore(self.index, owns, anew), connection)

    # What was refused

    def _heed(self, call: Call, error: Exception) -> None:
        moved = self._watching.get(call.key)
        if moved is not None and isinstance(error, errors.AskError):
            moved()
        if isinstance(error, errors.MovedError):
            self.topology.correct(error)
            self._handovers.review()
        elif isinstance(error, errors.ClusterDownError):
            self.topology.doubt(self.topology.owner(call.key))
            self._lookup.begin()
        if kind_of(error) is not Kind.PASSING and not is_ask(error):
            self._lookup.begin()
        super()._heed(call, error)

    # Who owns what

    def _learn(self, asked: Address, ranges: list[Any], question: int) -> None:
        heirs = self.topology.learn(asked, ranges, question, self._is_gone)
        self._handovers.review()
        for address in heirs:
            link = self._node(address, eager=True)
            if link.connection is None:
                link.begin()
            else:
                self.spawn(self._greet_at(address, link.connection))
        for address in self._nodes.keys() - self.topology.owners:
            link = self._nodes.pop(address)
            self.health.back(link)  # if it was down, it isn't missed any more
            self.spawn(self.retire_link(link))

    def _is_gone(self, node: Address) -> bool:
        """Whether a node that was in use can't have handed over what it had."""
        link = self._nodes.get(node)
        return link is not None and (
            link.connection is None or node not in self.topology.owners
        )


def make_shard(
    index: int, host: Host, command_timeout: float, restore: Restore
) -> Shard:
    """The shard for an entry of `hosts`."""
    if isinstance(host, ClusterHost):
        return ClusterShard(index, host, command_timeout, restore)
    return Shard(index, host, command_timeout, restore)
