"""Channels that follow a group with a history, and what they must see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis import exceptions as errors

from channels_redis_fast.commands.history import append_alone
from channels_redis_fast.types import POSITION, History, position_of
from channels_redis_fast.wire.positions import Position, read_placed
from support.layers import soon

GROUP = "room-1"
HISTORY = {"room-*": (1000, 300)}
RULES = {"room-*": (10, 300), "price-*": History(size=1, ttl=60)}


def place(position: str) -> Position:
    """A position of the group, in numbers."""
    found = read_placed(GROUP, position)
    assert found is not None
    return found


class Course:
    """How far a follower got: what comes next is the next, or tells of a gap."""

    def __init__(self, position: str) -> None:
        self.at = place(position)
        self.gaps: list[Position] = []

    def note(self, message: dict[str, Any]) -> bool:
        """Goes on; False if it was a gap."""
        is_gap = message["type"] == "group.gap"
        position = message["position"] if is_gap else position_of(message)
        assert position is not None
        before, self.at = self.at, place(position)
        if is_gap:
            assert self.at > before
            self.gaps.append(self.at)
        else:
            assert self.at == (before[0], before[1] + 1)
        return not is_gap


class Follower(Course):
    """A channel that reads all the time, and checks the order of what it gets."""

    def __init__(self, layer: Any, channel: str, position: str) -> None:
        super().__init__(position)
        self.channel = channel
        self.numbers: list[Any] = []
        self._reading = asyncio.create_task(self._read(layer))

    @classmethod
    async def join(cls, layer: Any, since: str | None = None) -> Follower:
        """One that begins at `since`, where it must have been able to."""
        channel = await layer.new_channel()
        since = since or await layer.group_position(GROUP)
        recovery = await layer.group_join(GROUP, channel, since)
        assert recovery.recovered
        return cls(layer, channel, since)

    async def end(self) -> None:
        """Reads no more; raises what was wrong."""
        self._reading.cancel()
        await asyncio.wait([self._reading])
        if not self._reading.cancelled():
            self._reading.result()

    @property
    def failed(self) -> bool:
        """Whether something was wrong."""
        return self._reading.done()

    def reached(self, position: Position) -> bool:
        """Whether it got all up to a position; raises what was wrong."""
        if self._reading.done():
            self._reading.result()
        return self.at == position

    async def _read(self, layer: Any) -> None:
        while True:
            message = await layer.receive(self.channel)
            if self.note(message):
                self.numbers.append(message.get("n"))


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message without its position."""
    return {key: value for key, value in message.items() if key != POSITION}


async def numbers(layer: Any, channel: str, count: int) -> list[Any]:
    """The numbers of the next messages of a channel."""
    return [(await soon(layer, channel))["n"] for _ in range(count)]


def said(number: Any) -> dict[str, Any]:
    """A message of that number."""
    return {"type": "said", "n": number}


async def send(layer: Any, *numbers: Any) -> int:
    """Sends messages to the group; how many of them failed, which may have come."""
    failed = 0
    for number in numbers:
        try:
            await layer.group_send(GROUP, said(number))
        except errors.RedisError:
            failed += 1
            await asyncio.sleep(0.01)
    return failed


async def insist(call: Callable[[], Awaitable[Any]]) -> Any:
    """What a call gives, as soon as there is a connection for it."""
    for _ in range(500):
        try:
            return await call()
        except errors.RedisError:
            await asyncio.sleep(0.01)
    return await call()


async def append(layer: Any, number: int, exclude: list[str] | None = None) -> None:
    """Does what a sender has done that dies before others hear of its message."""
    body = layer._body_but_for(said(number), exclude or [])
    index, command = append_alone(layer._history.append(GROUP, body))
    await layer._loops.engine().shards[index].run(command)
