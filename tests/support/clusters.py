"""A Redis Cluster: primaries that share the slots, and a replica of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations, count
from typing import Any

from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot

from support.polling import until
from support.servers import Option, Server

SLOTS = 16_384
# To look at all nodes costs more than their own work: it does so less often.
_until = partial(until, pause=0.05)


class Cluster:
    """Primaries and as many replicas, on ports of their own."""

    def __init__(
        self,
        *,
        primaries: int = 3,
        replicas: bool = True,
        node_timeout: int = 1000,
        password: str | None = None,
    ) -> None:
        self._primaries = primaries
        self._password = password
        self._client: RedisCluster | None = None
        options: dict[str, Option] = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": node_timeout,
            "cluster-replica-validity-factor": 0,
            "cluster-allow-replica-migration": "no",
            "repl-ping-replica-period": 1,
        }
        count = primaries * 2 if replicas else primaries
        self.nodes = [Server(password=password, options=options) for _ in range(count)]

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def host(self) -> dict[str, Any]:
        """The entry of `hosts`."""
        entry: dict[str, Any] = {"cluster": [list(node.address) for node in self.nodes]}
        return entry | ({"password": self._password} if self._password else {})

    @property
    def pids(self) -> set[int]:
        """The ids of its processes."""
        return {pid for node in self.nodes for pid in node.pids}

    @property
    def primaries(self) -> list[Server]:
        """The nodes that have slots now, in the slots' order."""
        owners = [self._by_port(port) for _, _, port in self._ranges()]
        return list(dict.fromkeys(owners))

    def client(self) -> RedisCluster:
        """A blocking client of the whole, closed when the Cluster stops."""
        if self._client is None:
            nodes = [ClusterNode(*node.address) for node in self.nodes if node.running]
            self._client = RedisCluster(
                startup_nodes=nodes, password=self._password, socket_timeout=10
            )
        return self._client

    def flush(self) -> None:
        """Remove all data and scripts."""
        for node in self.primaries:
            node.flush()

    def disconnect(self) -> None:
        """Close the connections of the clients."""
        if self._client is not None:
            self._client.close()
            self._client = None
        for node in self.nodes:
            node.disconnect()

    def start(self) -> Cluster:
        """Start the nodes, divide the slots, and wait until all agree."""
        try:
            with ThreadPoolExecutor(len(self.nodes)) as pool:
                list(pool.map(Server.start, self.nodes))
            self._introduce()
            self._divide()
            _until(self.settled, "the Cluster to be ready", timeout=20)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all nodes."""
        self.disconnect()
        for node in self.nodes:
            node.stop()

    def node_of(self, key: str | bytes) -> Server:
        """The primary that has the key's slot."""
        return self.node_of_slot(slot_of(key))

    def node_of_slot(self, slot: int) -> Server:
        """The primary that has the slot."""
        for first, last, port in self._ranges():
            if first <= slot <= last:
                return self._by_port(port)
        raise LookupError(f"nobody has slot {slot}")

    def kill_primary_of(self, key: str | bytes, *, timeout: float = 20.0) -> Server:
        """Kill the key's primary, and wait for the replica that takes its place."""
        old = self.node_of(key)
        old.kill()

        def promoted() -> Server | None:
            new = self.node_of(key)
            return new if new is not old and self.agree() else None

        return _until(promoted, "a replica to be promoted", timeout=timeout)

    def failover(self, key: str | bytes, *, timeout: float = 20.0) -> Server:
        """Swap the key's primary with its replica; nobody dies."""
        old = self.node_of(key)
        replica = next(node for node in self.nodes if _leader(node) == old.port)
        _ask(replica, "CLUSTER FAILOVER")

        def swapped() -> bool:
            try:
                return self.node_of(key) is replica and self.settled()
            except LookupError:  # while it changes hands, before Redis 7
                return False

        _until(swapped, "the primary and its replica to swap", timeout=timeout)
        return replica

    def revive(self, node: Server, *, timeout: float = 20.0) -> None:
        """Start a killed node again, and wait until it follows and all is well."""
        node.start()
        _until(self.settled, "the node to be back", timeout=timeout)

    def migration(self, slot: int, target: Server, *, batch: int = 1) -> Iterator[str]:
        """Move a slot step by step; yields after each what was done.

        "importing", "migrating", then "moved" after each batch of the slot's keys
        (those that come meanwhile too), and "assigned" when all know the new owner.
        """
        source = self.node_of_slot(slot)
        ids = {node: _id(node) for node in (source, target)}
        _setslot(target, slot, "IMPORTING", ids[source])
        yield "importing"
        _setslot(source, slot, "MIGRATING", ids[target])
        yield "migrating"
        words = [*target.address, "", 0, 5000]
        words += ["AUTH", self._password] if self._password else []
        while keys := _ask(source, "CLUSTER GETKEYSINSLOT", slot, batch):
            _ask(source, "MIGRATE", *words, "KEYS", *keys)
            yield "moved"
        others = [one for one in self.primaries if one not in (source, target)]
        for node in (target, source, *others):
            _setslot(node, slot, "NODE", ids[target])
        until(lambda: self._known(slot, target), "all to know the slot's new owner")
        yield "assigned"

    def migrate_slot(
        self,
        slot: int,
        target: Server,
        between: Callable[[str], object] = lambda step: None,
        *,
        batch: int = 1,
    ) -> None:
        """Move a slot, calling `between` with the name of each step that was done."""
        for step in self.migration(slot, target, batch=batch):
            between(step)

    def give_slot(self, slot: int, target: Server) -> None:
        """Give a slot to another primary, without what was in it."""
        for node in self.primaries:
            if node.running:
                _setslot(node, slot, "NODE", _id(target))

    def contradict(self, slot: int, one: Server, other: Server) -> None:
        """Have each of two nodes say that the other has a slot."""
        _setslot(one, slot, "NODE", _id(other))
        _setslot(other, slot, "NODE", _id(one))

    def serve_in_part(self) -> None:
        """Have the nodes serve their slots though others are served by nobody."""
        for node in self.nodes:
            node.client().config_set("cluster-require-full-coverage", "no")

    def agree(self) -> bool:
        """Whether all nodes that run call the Cluster well, and its slots the same."""
        running = [node for node in self.nodes if node.running]
        infos = [node.client().cluster("info") for node in running]
        if any(info["cluster_state"] != "ok" for info in infos):
            return False
        return len({tuple(_ranges(node)) for node in running}) == 1

    def settled(self) -> bool:
        """The same, and every replica follows its primary."""
        return self.agree() and all(map(_well, self.nodes))

    def _introduce(self) -> None:
        # Each meets each: quicker than waiting for the gossip.
        for epoch, node in enumerate(self.nodes, 1):
            _ask(node, "CLUSTER SET-CONFIG-EPOCH", epoch)
        for one, other in combinations(self.nodes, 2):
            _ask(one, "CLUSTER MEET", *other.address)
        everybody = {_id(node) for node in self.nodes}
        _until(
            lambda: all(_acquainted(node) == everybody for node in self.nodes),
            "the nodes to know each other",
        )

    def _divide(self) -> None:
        count = self._primaries
        bounds = [SLOTS * index // count for index in range(count + 1)]
        for index, node in enumerate(self.nodes[:count]):
            _ask(node, "CLUSTER ADDSLOTS", *range(bounds[index], bounds[index + 1]))
        for primary, replica in zip(self.nodes, self.nodes[count:], strict=False):
            _ask(replica, "CLUSTER REPLICATE", _id(primary))

    def _known(self, slot: int, owner: Server) -> bool:
        views = [_ranges(node) for node in self.nodes if node.running]
        return all(
            port == owner.port
            for view in views
            for first, last, port in view
            if first <= slot <= last
        )

    def _ranges(self) -> list[tuple[int, int, int]]:
        return _ranges(next(node for node in self.nodes if node.running))

    def _by_port(self, port: int) -> Server:
        return next(node for node in self.nodes if node.port == port)


def slot_of(key: str | bytes) -> int:
    """The key's slot."""
    return int(key_slot(key.encode() if isinstance(key, str) else key))


def _ask(node: Server, *words: Any) -> Any:
    return node.client().execute_command(*words)


def _id(node: Server) -> str:
    return str(_ask(node, "CLUSTER MYID").decode())


def _acquainted(node: Server) -> set[str]:
    """The ids of those that the node knows."""
    return {known["node_id"] for known in _ask(node, "CLUSTER NODES").values()}


def _ranges(node: Server) -> list[tuple[int, int, int]]:
    """The ranges of slots with the port of their primary, as this node knows them."""
    ranges = _ask(node, "CLUSTER SLOTS")
    return sorted((first, last, owner[1]) for first, last, owner, *_ in ranges)


def _setslot(node: Server, slot: int, state: str, other: str) -> None:
    _ask(node, "CLUSTER SETSLOT", slot, state, other)


def _leader(node: Server) -> int | None:
    """The port of the primary that the node follows."""
    state = node.client().info("replication") if node.running else {}
    return int(state["master_port"]) if state.get("role") == "slave" else None


def _well(node: Server) -> bool:
    """Whether the node leads, or follows closely, or was killed."""
    state = node.client().info("replication") if node.running else {}
    return state.get("role") != "slave" or state["master_link_status"] == "up"


def key_of(channel: str) -> str:
    """The key of a process channel."""
    return f"asgi{channel.split('!')[0]}!"


def group_on(cluster: Cluster, node: Server) -> str:
    """A group whose key is on a node."""
    names = (f"room{n}" for n in count())
    return next(n for n in names if cluster.node_of(f"asgi:group:{n}") is node)
