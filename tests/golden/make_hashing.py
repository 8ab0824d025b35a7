"""Writes hashing.json: the shards that channels_redis 4.3 gives to a set of names.

For ring sizes 1 to 64 in order. Run it again only to add names: the rule itself is what
every process of a fleet agrees on.
"""

import hashlib
import json
from pathlib import Path

from channels_redis.utils import _consistent_hash

RING_SIZES = range(1, 65)


def hex_of(seed: int) -> str:
    return hashlib.md5(str(seed).encode()).hexdigest()


NAMES = [
    *("0123456789abcdefghi"[:length] for length in range(20)),
    *(f"specific.{hex_of(seed)}!" for seed in range(8)),
    *(f"asgispecific.{hex_of(seed)}!{hex_of(-seed)}" for seed in range(8, 12)),
    *(f"room_{number}" for number in range(8)),
    *("http.request", "websocket.send!", "chat-7", "a" * 99, "raum_für_√\N{SNOWMAN}"),
]

if __name__ == "__main__":
    lines = [
        f"{json.dumps(name)}: {[_consistent_hash(name, size) for size in RING_SIZES]}"
        for name in NAMES
    ]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    Path(__file__).with_name("hashing.json").write_text(text)
