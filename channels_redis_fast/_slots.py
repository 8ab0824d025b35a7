"""The slots of a Cluster: which a key has, which node owns it."""

from __future__ import annotations

from typing import Any

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
