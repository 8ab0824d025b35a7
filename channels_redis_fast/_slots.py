"""The slots of a Cluster: which a key has, which node owns it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis import exceptions as errors
from redis.crc import key_slot

Address = tuple[str, int]

SLOTS = 16384


def slot_of(key: bytes | str) -> int:
    """The slot of a key."""
    return int(key_slot(key.encode() if isinstance(key, str) else key))


def owners_of_slots(asked: Address, ranges: list[Any]) -> list[Address | None]:
    """The owner of each slot, by what the node at `asked` said to CLUSTER SLOTS."""
    owners: list[Address | None] = [None] * SLOTS
    for first, last, primary, *_ in ranges:
        # A node that doesn't know its own name means the one that was asked.
        owner = ((primary[0] or b"").decode() or asked[0], int(primary[1]))
        owners[first : last + 1] = [owner] * (last + 1 - first)
    return owners


def share_of(seconds: float, nodes: int) -> float:
    """How long to wait for the first of so many nodes that are asked in turn (seconds).

    A silent one must not use up the time to ask the others.
    """
    return max(0.0, seconds) / min(3, nodes)


class Topology:
    """What is known of a Cluster: who owns which slot, and who is to be asked; no I/O.

    `configured` are the nodes to begin with.
    """

    def __init__(self, configured: Iterable[Address]) -> None:
        self._configured = list(configured)
        self._owners: list[Address | None] = [None] * SLOTS
        # Nodes that said CLUSTERDOWN: theirs may be the lost side of a split.
        self._doubted: set[Address] = set()

    @property
    def owners(self) -> set[Address]:
        """All nodes that own slots."""
        return {owner for owner in self._owners if owner}

    def owner(self, key: bytes | str) -> Address | None:
        """The node that owns the slot of a key, as far as is known."""
        return self._owners[slot_of(key)]

    def candidates(self, up: Iterable[Address]) -> list[Address]:
        """Nodes to ask for the slots: those `up` first, those in doubt last."""
        known = [owner for owner in dict.fromkeys(self._owners) if owner]
        nodes = dict.fromkeys([*up, *known, *self._configured])
        return sorted(nodes, key=self._doubted.__contains__)

    def learn(self, asked: Address, ranges: list[Any]) -> None:
        """Takes what the node at `asked` said to CLUSTER SLOTS."""
        self._owners = owners_of_slots(asked, ranges)
        self._doubted.clear()

    def correct(self, moved: errors.MovedError) -> None:
        """Takes what a node said of one slot."""
        self._owners[moved.slot_id] = (moved.host, moved.port)

    def doubt(self, node: Address | None) -> None:
        """Asks others first, who may have seen a failover that this node didn't."""
        if node is not None:
            self._doubted.add(node)
