"""The limit of all: no Redis, and one process."""

from __future__ import annotations

import asyncio
from typing import Any


class Queues:
    """No Redis: an `asyncio.Queue` per channel of one process."""

    def __init__(self) -> None:
        self._queues: dict[str, asyncio.Queue[Any]] = {}

    async def new_channel(self) -> str:
        """A name of the usual length."""
        name = f"specific.{'0' * 16}!{len(self._queues):016x}"
        self._queues[name] = asyncio.Queue()
        return name

    async def group_add(self, group: str, channel: str) -> None:
        """All are in one group."""

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Puts a copy into the queue."""
        self._queues[channel].put_nowait(message.copy())
        await asyncio.sleep(0)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Puts a copy into every queue."""
        for queue in self._queues.values():
            queue.put_nowait(message.copy())
        await asyncio.sleep(0)

    async def receive(self, channel: str) -> dict[str, Any]:
        """Waits on the queue."""
        message: dict[str, Any] = await self._queues[channel].get()
        return message

    async def close(self) -> None:
        """Nothing is open."""
