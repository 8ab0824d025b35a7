"""The slots of a Cluster: which a key has, which node owns it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from redis import exceptions as errors
from redis.crc import key_slot

Address = tuple[str, int]
Owns = Callable[[bytes | str], bool]

SLOTS = 16384

# What a node calls another whose host name it should say and doesn't know.
_UNKNOWN = "?"


def slot_of(key: bytes | str) -> int:
    """The slot of a key."""
    return int(key_slot(key.encode() if isinstance(key, str) else key))


def address_of(host: bytes | str | None, port: int, asked: str) -> Address:
    """The address of a node as a node on the host `asked` gave it.

    No host means the one that was asked; so does one that it doesn't know.
    """
    name = host.decode() if isinstance(host, bytes) else host
    return (asked if name in (None, "", _UNKNOWN) else str(name), int(port))


def owners_of_slots(asked: Address, ranges: list[Any]) -> list[Address | None]:
    """The owner of each slot, by what the node at `asked` said to CLUSTER SLOTS."""
    owners: list[Address | None] = [None] * SLOTS
    for first, last, primary, *_ in ranges:
        owner = address_of(_host_in(primary), primary[1], asked[0])
        owners[first : last + 1] = [owner] * (last + 1 - first)
    return owners


def _host_in(node: list[Any]) -> bytes | None:
    """The host of a node in CLUSTER SLOTS: its IP where its name is not known."""
    host, _, *more = node
    if host == _UNKNOWN.encode() and len(more) > 1:  # Redis 7 adds what else it knows
        host = dict(zip(more[1][::2], more[1][1::2], strict=True)).get(b"ip")
    return None if host is None else bytes(host)


class Topology:
    """What is known of a Cluster: who owns which slot, and who is to be asked; no I/O.

    `configured` are the nodes to begin with.
    """

    def __init__(self, configured: Iterable[Address]) -> None:
        self._configured = list(configured)
        self._owners: list[Address | None] = [None] * SLOTS
        self.changes = 0  # of owners, so far
        # Nodes that said CLUSTERDOWN: theirs may be the lost side of a split.
        self._doubted: set[Address] = set()
        # Questions and corrections, in their order: what was said of a slot after the
        # question holds against the answer, which may be older.
        self._numbers = itertools.count()
        self._answered = -1  # the latest question that has an answer
        self._told = self._owners.copy()  # by the answer to it
        self._corrections: dict[int, tuple[int, Address]] = {}
        # Slots of nodes that are gone, by who has them now and was not greeted since.
        self._inherited: dict[Address, set[int]] = {}

    @property
    def owners(self) -> set[Address]:
        """All nodes that own slots."""
        return {owner for owner in self._owners if owner}

    def owner(self, key: bytes | str) -> Address | None:
        """The node that owns the slot of a key, as far as is known."""
        return self._owners[slot_of(key)]

    def questions(
        self, up: Iterable[Address], left: Callable[[], float]
    ) -> Iterator[tuple[Address, float, int]]:
        """Which nodes to ask for the slots in turn, until one answers.

        Those `up` first, those in doubt last. Each with how long to wait (seconds; a
        silent one must not use up what is `left` for the others), and the number of the
        question, which `learn` wants.
        """
        known = [owner for owner in dict.fromkeys(self._owners) if owner]
        nodes = dict.fromkeys([*up, *known, *self._configured])
        candidates = sorted(nodes, key=self._doubted.__contains__)
        for to_come, node in zip(
            range(len(candidates), 0, -1), candidates, strict=True
        ):
            yield node, max(0.0, left()) / min(3, to_come), next(self._numbers)

    def learn(
        self,
        asked: Address,
        ranges: list[Any],
        question: int,
        is_gone: Callable[[Address], bool],
    ) -> set[Address]:
        """Takes what the node at `asked` said to CLUSTER SLOTS.

        Corrections that are younger than the question stay, and an answer that comes
        after that to a later question is too old. Returns the nodes that now have slots
        of one that `is_gone`: they are to be greeted (again), see `claims`.
        """
        if question < self._answered:
            return set()
        self._answered = question
        told, before = owners_of_slots(asked, ranges), self._told
        owners = told.copy()
        for slot, (number, owner) in list(self._corrections.items()):
            if number > question:
                owners[slot] = owner
            else:
                self._corrections.pop(slot, None)
        self.changes += owners != self._owners
        self._owners, self._told = owners, told
        self._doubted.clear()
        return self._inherit(before, is_gone)

    def claims(self, node: Address) -> Iterator[tuple[Owns, bool]]:
        """What a node is greeted for: has it a key, and did it come by it unnoticed?

        When the next is asked for, the one before counts as done.
        """
        yield lambda key: self.owner(key) == node, False
        if slots := self._inherited.get(node):
            taken = slots.copy()
            yield lambda key: slot_of(key) in taken, True
            slots -= taken

    def correct(self, moved: errors.MovedError) -> bool:
        """Takes what a node said of one slot; False when it doesn't know the host."""
        if moved.node_addr[0] == _UNKNOWN:
            return False
        owner = moved.host, moved.port
        self._corrections[moved.slot_id] = next(self._numbers), owner
        self.changes += owner != self._owners[moved.slot_id]
        self._owners[moved.slot_id] = owner
        return True

    def doubt(self, node: Address | None) -> None:
        """Asks others first, who may have seen a failover that this node didn't."""
        if node is not None:
            self._doubted.add(node)

    def _inherit(
        self, before: list[Address | None], is_gone: Callable[[Address], bool]
    ) -> set[Address]:
        heirs: set[Address] = set()
        if before == self._told:
            return heirs
        gone = {node for node in dict.fromkeys(before) if node and is_gone(node)}
        for slot, (former, owner) in enumerate(zip(before, self._told, strict=True)):
            if former in gone and owner is not None and owner != former:
                self._inherited.setdefault(owner, set()).add(slot)
                heirs.add(owner)
        return heirs
