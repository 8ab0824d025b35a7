"""What grows with channels: 10,000 are read in turn, 100,000 made and dropped.

    python bench/growth.py [--normal 10000] [--channels 100000] [--layer core]

Of this process it prints, before, at the most and when all is over: descriptors,
connections at the server, memory, channels; and for how long (ms) the event loop stood
still at the longest, and all did for Python's garbage collector. The exit status is
1 when something is left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.pubsub import RedisPubSubChannelLayer
from support.servers import Server

LAYERS = {"core": RedisChannelLayer, "pubsub": RedisPubSubChannelLayer}
EXPIRY = 2.0  # seconds
TOGETHER = 100  # calls at a time
LOOK_EVERY = 0.05  # seconds
LONGEST = 120.0  # seconds until all has ended
HEARTBEAT = b"{processes}"  # what is Redis's of processes that live, ends so
SPARE = 2  # connections and descriptors that a layer has more when it was used
HELLO = {"type": "hello"}


class Sizes(NamedTuple):
    """What there is of each thing."""

    descriptors: int
    connections: int
    mebibytes: float
    channels: int

    @classmethod
    def now(cls, layer: Any, server: Server) -> Sizes:
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        return cls(
            len(os.listdir("/proc/self/fd")),
            len(server.clients()),
            pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
            len(layer._mailboxes),
        )

    def __str__(self) -> str:
        return (
            f"{self.descriptors:6} {self.connections:6} {self.mebibytes:8.1f}"
            f" {self.channels:9,}"
        )


class Stops:
    """For how long the event loop, and the collector, took at the longest (seconds)."""

    def __init__(self) -> None:
        self.longest = self.collecting = self._began = 0.0

    def note_collection(self, phase: str, about: dict[str, Any]) -> None:
        """For `gc.callbacks`."""
        if phase == "start":
            self._began = time.perf_counter()
        else:
            seconds = time.perf_counter() - self._began
            self.collecting = max(self.collecting, seconds)

    async def watch(self) -> None:
        """Runs until it is cancelled."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0)
            self.longest = max(self.longest, time.perf_counter() - began)
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def measured(what: str, layer: Any, server: Server) -> AsyncIterator[None]:
    """Prints what was there at the most meanwhile."""
    stops, found = Stops(), [Sizes.now(layer, server)]
    watching = asyncio.create_task(stops.watch())
    looking = asyncio.create_task(_look(layer, server, found))
    began = time.monotonic()
    gc.callbacks.append(stops.note_collection)
    try:
        yield
    finally:
        gc.callbacks.remove(stops.note_collection)
        for task in (watching, looking):
            task.cancel()
        await asyncio.gather(watching, looking, return_exceptions=True)
    most = Sizes(*map(max, zip(*found, strict=True)))
    seconds = time.monotonic() - began
    longest = f"{1000 * stops.longest:6.0f} {1000 * stops.collecting:6.0f}"
    print(f"{what:34} {most} {seconds:8.1f} {longest}", flush=True)


async def _look(layer: Any, server: Server, found: list[Sizes]) -> None:
    while True:
        found.append(await asyncio.to_thread(Sizes.now, layer, server))
        await asyncio.sleep(LOOK_EVERY)


async def use_normal(layer: Any, count: int) -> None:
    """Sends to so many normal channels and receives it, one after the other."""
    for number in range(count):
        name = f"worker{number}"
        await layer.send(name, HELLO)
        assert await layer.receive(name) == HELLO


async def use_new(layer: Any, count: int) -> list[str]:
    """Makes so many channels; each joins one of a hundred groups."""
    names: list[str] = []
    for start in range(0, count, TOGETHER):
        fresh = [layer.new_channel() for _ in range(min(TOGETHER, count - start))]
        made = await asyncio.gather(*fresh)
        adds = (layer.group_add(f"group{n}", name) for n, name in enumerate(made))
        await asyncio.gather(*adds)
        names += made
    return names


async def ended(layer: Any, server: Server) -> None:
    """Returns when no channel is left, here, in a group or at the server."""

    def is_left() -> bool:
        client = server.client()
        keys = [key for key in client.scan_iter() if not key.endswith(HEARTBEAT)]
        return bool(keys or client.pubsub_channels())

    while len(layer._mailboxes) or await asyncio.to_thread(is_left):  # noqa: ASYNC110
        await asyncio.sleep(LOOK_EVERY)


async def grow(server: Server, kind: str, normal: int, channels: int) -> bool:
    """Whether nothing is left of all that."""
    layer = LAYERS[kind](hosts=[server.url], expiry=EXPIRY)
    async with measured("before", layer, server):
        await layer.send(await layer.new_channel(), HELLO)
    before = Sizes.now(layer, server)
    async with measured(f"{normal:,} normal channels in turn", layer, server):
        await use_normal(layer, normal)
    for again in ("", " again"):  # what a process keeps once, it needn't take again
        async with measured(f"{channels:,} channels made{again}", layer, server):
            names = await use_new(layer, channels)
        if again:
            async with measured("flush", layer, server):
                await layer.flush()
        async with measured("dropped, until none is left", layer, server):
            names.clear()
            await asyncio.wait_for(ended(layer, server), LONGEST)
    gc.collect()
    async with measured("after", layer, server):
        await asyncio.sleep(2)
    after = Sizes.now(layer, server)
    await layer.close_pools()
    return (
        not after.channels
        and after.connections <= before.connections + SPARE
        and after.descriptors <= before.descriptors + SPARE
    )


def main() -> None:
    """Measures, and says by the exit status whether something is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--normal", type=int, default=10_000)
    parser.add_argument("--channels", type=int, default=100_000)
    parser.add_argument("--layer", choices=LAYERS, action="append")
    options = parser.parse_args()
    left = []
    for kind in options.layer or LAYERS:
        titles = " files  conns      MiB  channels  seconds   stop     gc"
        print(f"{kind + ': at the most':34} {titles}")
        with Server() as server:
            work = grow(server, kind, options.normal, options.channels)
            if not asyncio.run(work):
                left.append(kind)
    sys.exit(f"something is left: {', '.join(left)}" if left else None)


if __name__ == "__main__":
    main()
