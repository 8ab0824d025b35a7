"""A process that sends to groups, as fast as clients get it or at a fixed rate.

    sender.py DESCRIPTOR DONE

DESCRIPTOR is the pipe over which it is told what to do (see worker.py). From DONE it
reads a byte for each message that all clients have (see clients.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).parents[1]))
sys.path.insert(2, str(Path(__file__).parents[2] / "tests"))

from contenders import CONTENDERS, Setting, close_layer
from worker import serve

PATIENCE = 10.0  # seconds for one more message to arrive


class Bare:
    """What publishes for the application without Channels."""

    def __init__(self, address: tuple[str, int]) -> None:
        from redis.asyncio import Redis

        self._redis = Redis(host=address[0], port=address[1], socket_timeout=None)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """To all sockets."""
        text = json.dumps({"n": message["n"], "text": message["text"]})
        await self._redis.publish("bare", text)

    async def close_pools(self) -> None:
        """Closes the connection."""
        await self._redis.aclose()


class Sender:
    """One layer, and messages to its groups; its methods are called over the pipe."""

    def __init__(self, done: int) -> None:
        os.set_blocking(done, False)
        self._done = done
        self._under_way = 0
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(done, self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._under_way -= len(os.read(self._done, 65536))
            self._news.set()

    async def open(self, contender: str, address: tuple[str, int], size: int) -> None:
        """Makes the layer; messages have a text of so many characters."""
        if contender == "bare":
            self._layer: Any = Bare(address)
        else:
            self._layer = CONTENDERS[contender].make(Setting(tuple(address)))
        self._text = "x" * size

    async def close(self) -> None:
        """Closes its connections."""
        await close_layer(self._layer)

    async def flood(
        self, first: int, groups: int, window: int, seconds: float, least: int
    ) -> tuple[int, float]:
        """Never more than a window of messages that some client doesn't have.

        How many were sent, and when it began.
        """
        self._read()
        self._under_way = 0
        began, number = time.monotonic(), first
        while number - first < least or time.monotonic() - began < seconds:
            while self._under_way >= window:
                self._news.clear()
                try:
                    await asyncio.wait_for(self._news.wait(), PATIENCE)
                except asyncio.TimeoutError:  # the rest is lost: `collect` counts it
                    return number - first, began
            self._under_way += 1
            await self._send(number, groups)
            number += 1
        return number - first, began

    async def pace(
        self, first: int, groups: int, count: int, rate: float
    ) -> list[float]:
        """So many messages per second; when each was sent."""
        began, stamps = time.monotonic(), []
        for index in range(count):
            await asyncio.sleep(max(0.0, began + index / rate - time.monotonic()))
            stamps.append(time.monotonic())
            await self._send(first + index, groups)
        return stamps

    async def _send(self, number: int, groups: int) -> None:
        message = {"type": "chat.message", "n": number, "text": self._text}
        await self._layer.group_send(f"room-{number % groups}", message)


def main(pipe: str, done: str) -> None:
    """Does what it is told until the pipe is closed."""

    async def work() -> None:
        await serve(Connection(int(pipe)), Sender(int(done)))

    asyncio.run(work())


if __name__ == "__main__":
    main(*sys.argv[1:])
