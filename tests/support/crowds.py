"""Members of a group that wait, a sender that never tires, and what was logged."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import TracebackType
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.core import RedisChannelLayer
from support.layers import end
from support.polling import eventually

GONE, BACK = "is gone", "is back"


def lines(caplog: pytest.LogCaptureFixture) -> Counter[str]:
    """How often the layer said that Redis is gone, and that it is back."""
    said = " ".join(caplog.messages)
    return Counter({GONE: said.count(GONE), BACK: said.count(BACK)})


class Crowd:
    """Consumers of one layer that wait in `receive`, and the numbers that each got."""

    def __init__(self, layer: RedisChannelLayer, size: int, group: str = "room"):
        self._layer = layer
        self._size = size
        self._group = group
        self._tasks: list[asyncio.Task[Any]] = []
        self.names: list[str] = []
        self.got: list[list[int]] = [[] for _ in range(size)]

    async def __aenter__(self) -> Crowd:
        self.names = [await self._layer.new_channel() for _ in range(self._size)]
        for name in self.names:
            await self._layer.group_add(self._group, name)
        for name, got in zip(self.names, self.got, strict=True):
            self._tasks.append(asyncio.create_task(self._read(name, got)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ended = [task for task in self._tasks if task.done()]
        await end(*self._tasks)
        if kind is None:
            assert not ended, f"consumers ended: {[t.exception() for t in ended]}"

    async def _read(self, name: str, got: list[int]) -> None:
        while True:
            got.append((await self._layer.receive(name))["n"])

    def all_got(self, numbers: set[int]) -> bool:
        """Whether everybody has got all these numbers."""
        return all(numbers.issubset(got) for got in self.got)

    def check(self) -> None:
        """Nothing came twice or out of order."""
        for got in self.got:
            assert got == sorted(set(got))


class Sender:
    """A `group_send` every 10 ms; which were accepted, and what was raised."""

    def __init__(self, layer: RedisChannelLayer, group: str = "room") -> None:
        self._layer = layer
        self._group = group
        self.accepted: list[int] = []
        self.errors: Counter[str] = Counter()
        self.slowest = 0.0
        # The number of the send that began last.
        self.number = -1

    async def __aenter__(self) -> Sender:
        self._task = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._task)

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.number += 1
            began = loop.time()
            try:
                await self._layer.group_send(self._group, {"n": self.number})
            except ConnectionError as error:
                raise TypeError("not redis-py's") from error
            except Exception as error:
                self.errors[type(error).__name__] += 1
            else:
                self.accepted.append(self.number)
            self.slowest = max(self.slowest, loop.time() - began)
            await asyncio.sleep(0.01)

    def since(self, number: int) -> set[int]:
        """The numbers that were accepted, of the sends that began after this one."""
        return {n for n in self.accepted if n > number}

    async def accepts(self, more: int) -> None:
        """Waits until so many more were accepted."""
        wanted = len(self.accepted) + more
        await eventually(lambda: len(self.accepted) >= wanted, f"{more} group_sends")


async def eventually_sent(layer: Any, channel: str, message: dict[str, Any]) -> int:
    """Sends until there is a connection; how often there was none."""
    for refused in range(1000):
        try:
            await layer.send(channel, message)
        except errors.BusyLoadingError:
            raise
        except errors.ConnectionError:
            await asyncio.sleep(0.01)
        else:
            return refused
    raise TimeoutError("never accepted")
