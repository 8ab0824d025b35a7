"""How evenly names spread over shards: `spread.py [number of names]`."""

from __future__ import annotations

import random
import string
import sys

from channels_redis_fast.wire._hashing import shard_of

LETTERS = f"{string.ascii_letters}{string.digits}-_"  # of names that layers make

draw = random.Random(1)
KINDS = {
    "channels of processes": lambda number: (
        f"specific.{''.join(draw.choices(LETTERS, k=16))}!"
    ),
    "groups with a number": lambda number: f"chat.room.{number}",
}


def shares(names: list[str], ring_size: int) -> list[float]:
    """Percent of the names on each shard."""
    counts = [0] * ring_size
    for name in names:
        counts[shard_of(name, ring_size)] += 1
    return [100 * count / len(names) for count in counts]


def main() -> None:
    amount = int(sys.argv[1]) if sys.argv[1:] else 100_000
    for kind, make in KINDS.items():
        names = [make(number) for number in range(amount)]
        print(f"{amount:,} {kind}: percent on each shard; the fullest over the mean")
        for ring_size in range(2, 17):
            found = shares(names, ring_size)
            fullest = max(found) * ring_size / 100
            columns = " ".join(f"{share:4.1f}" for share in found)
            print(f"{ring_size:4}  {fullest:.3f}  {columns}")
        print()


if __name__ == "__main__":
    main()
