"""What `layer.stats()` and a scrape of it take: `scrape.py [--channels N]`.

CPU of this process (ms) for a layer with so many channels, half of which are in a group
and have unread messages. Each figure is the median of many.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time

from prometheus_client import CollectorRegistry, generate_latest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from channels_redis_fast.contrib.prometheus import install
from support.polling import eventually
from support.servers import Server
from support.syncing import KINDS

CALLS = 50


def cpu(call: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    taken = []
    for _ in range(CALLS):
        began = process_time()
        call()
        taken.append(process_time() - began)
    return 1000 * median(taken)


async def measure(kind: str, server: Server, channels: int) -> None:
    """Prints the row of a layer."""
    layer = KINDS[kind](hosts=[server.url], capacity=10**6)
    names = [await layer.new_channel() for _ in range(channels)]
    for name in names[::2]:
        await layer.group_add("room", name)
    await layer.group_send("room", {"type": "t"})
    waiting = asyncio.create_task(layer.receive(names[1]))
    half = len(names[::2])
    await eventually(lambda: layer.stats()["waiting"] == half, "the messages")
    registry = CollectorRegistry()
    install(registry, {"default": layer})
    stats, scrape = cpu(layer.stats), cpu(lambda: generate_latest(registry))
    print(f"{kind:8} {channels:8,} {stats:10.2f} {scrape:10.2f}")
    waiting.cancel()
    await layer.close_pools()


def main() -> None:
    """Measures both layers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--channels", type=int, default=1000)
    channels = parser.parse_args().channels
    print(f"{'layer':8} {'channels':>8} {'stats, ms':>10} {'scrape, ms':>10}")
    with Server() as server:
        for kind in KINDS:
            asyncio.run(measure(kind, server, channels))


if __name__ == "__main__":
    main()
