"""What operations take of Redis itself: `redis_cpu.py [--passes N]`.

CPU of the server process (us) for each `group_send`, by the number of members in one
process, for each `send` to one channel, by the size of its text, for `group_count`, and
for a process's heartbeat among many. The operations take turns; each figure is the
median of all passes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

import redis

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from channels_redis_fast.core import RedisChannelLayer
from support.pretending import ALIVE, beat
from support.servers import Server

MEMBERS = (1, 10, 100, 1_000, 10_000)
SIZES = (100, 4_096, 65_536, 900_000)  # bytes
CALLS = 2_000  # in a measurement, fewer of what is large
WORK = 2_000_000  # members or bytes in a measurement, beyond which there are fewer
LEAST = 20
TOGETHER = 500  # joins at a time
PROCESSES = 1_000

Call = Callable[[], Awaitable[Any]]


class Measured:
    """A layer, and the CPU that its server takes for what it does."""

    def __init__(self, server: Server) -> None:
        self.layer = RedisChannelLayer(hosts=[server.url], capacity=10**6)
        self._redis: redis.Redis = server.client()
        self._names: list[str] = []  # channels live as long as these

    async def join(self) -> None:
        """Makes a group of each size, `members-N`."""
        while len(self._names) < max(MEMBERS):
            self._names.append(await self.layer.new_channel())
        for count in MEMBERS:
            for start in range(0, count, TOGETHER):
                names = self._names[start : min(count, start + TOGETHER)]
                joins = (self.layer.group_add(f"members-{count}", n) for n in names)
                await asyncio.gather(*joins)

    async def cpu(self, call: Call, calls: int) -> float:
        """Microseconds of the server for one call of many."""
        others = [f"{number:032x}" for number in range(PROCESSES)]
        self._redis.zadd(ALIVE, dict.fromkeys(others, time.time()))
        await call()
        before = self._seconds()
        for _ in range(calls):
            await call()
        taken = self._seconds() - before
        for key in self._redis.scan_iter("asgi*"):
            if not key.startswith((b"asgi:group:", b"asgi:alive:")):
                self._redis.delete(key)
        return taken / calls * 1e6

    def _seconds(self) -> float:
        found = self._redis.info("cpu")
        return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


def operations(layer: RedisChannelLayer) -> list[tuple[str, Call, int]]:
    """Each with its name and the number of calls in a measurement."""
    found: list[tuple[str, Call, int]] = []
    for count in MEMBERS:
        message = {"type": "chat.message", "text": "x" * 100}
        found.append(
            (
                f"group_send to {count:,} members",
                lambda g=f"members-{count}", m=message: layer.group_send(g, m),
                max(LEAST, min(CALLS, WORK // 10 // count)),
            )
        )
    for size in SIZES:
        text = {"type": "chat.message", "text": "x" * size}
        found.append(
            (
                f"send of {size:,} bytes",
                lambda m=text: layer.send("worker", m),
                max(LEAST, min(CALLS, WORK * 10 // size)),
            )
        )
    group = f"members-{max(MEMBERS)}"
    found.append(
        (f"group_count of {max(MEMBERS):,}", lambda: layer.group_count(group), CALLS)
    )
    found.append((f"heartbeat among {PROCESSES:,} others", lambda: beat(layer), CALLS))
    return found


async def measure(server: Server, passes: int) -> dict[str, list[float]]:
    """The figures of each pass, by operation."""
    measured = Measured(server)
    await measured.join()
    found: dict[str, list[float]] = {}
    for _ in range(passes):
        for name, call, calls in operations(measured.layer):
            found.setdefault(name, []).append(await measured.cpu(call, calls))
    await measured.layer.close_pools()
    return found


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--passes", type=int, default=3)
    arguments = parser.parse_args()
    with Server() as server:
        found = asyncio.run(measure(server, arguments.passes))
    print(f"\n{'CPU of Redis for each':34} {'us':>9} {'from':>9} {'to':>9}")
    for name, figures in found.items():
        print(
            f"{name:34} {median(figures):9.1f} {min(figures):9.1f} {max(figures):9.1f}"
        )


if __name__ == "__main__":
    main()
