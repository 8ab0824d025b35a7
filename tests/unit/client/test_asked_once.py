"""What is asked of servers once, and the order in which its callers go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis import exceptions as errors

from channels_redis_fast.client.asked_once import AskedOnce

SHARD, OTHER = "a shard", "another"


class Callers:
    """Calls that learn the same thing, each in a task, and how they went on."""

    def __init__(self) -> None:
        self.asked = AskedOnce()
        self.went_on: list[int] = []
        self.questions: list[asyncio.Future[None]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, shard: object = SHARD) -> None:
        """One more call, until it waits."""
        self.tasks.append(asyncio.create_task(self._call(len(self.tasks), shard)))
        await asyncio.sleep(0)

    async def _call(self, number: int, shard: object) -> None:
        if not self.asked.is_settled:
            await self.asked.learn(shard, self._ask)
        self.went_on.append(number)

    def _ask(self) -> Awaitable[None]:
        self.questions.append(asyncio.get_running_loop().create_future())
        return self.questions[-1]

    async def end(self) -> list[int]:
        """Awaits all calls; in which order they went on."""
        await asyncio.gather(*self.tasks, return_exceptions=True)
        assert self.asked.is_settled == self.asked.is_known
        return self.went_on


async def test_who_comes_when_it_is_known_asks_nothing() -> None:
    """However fast they come: there is never a moment in which nobody waits."""
    callers = Callers()
    for _ in range(3):
        await callers.come()
    callers.questions[0].set_result(None)
    await asyncio.sleep(0)
    assert callers.went_on == [0]
    for _ in range(50):
        await callers.come()
    callers.questions[1].set_result(None)
    await callers.come()
    callers.questions[2].set_result(None)
    for _ in range(50):
        await callers.come()
    assert await callers.end() == list(range(104))
    assert len(callers.questions) == 3


async def test_shards_wait_for_themselves() -> None:
    """One that doesn't answer holds nobody else up."""
    callers = Callers()
    await callers.come()
    await callers.come(OTHER)
    callers.questions[1].set_result(None)
    await callers.come(OTHER)
    await callers.come(SHARD)
    await asyncio.sleep(0)
    assert callers.went_on == [1, 2]
    callers.questions[0].set_result(None)
    assert await callers.end() == [1, 2, 0, 3]


async def test_who_is_cancelled_holds_nobody_up() -> None:
    callers = Callers()
    await callers.come()
    await callers.come()
    callers.questions[0].set_result(None)
    await callers.come()
    await callers.come()
    callers.tasks[2].cancel()
    callers.tasks[1].cancel()
    assert await callers.end() == [0, 3]


@pytest.mark.parametrize(
    ("error", "is_known"),
    [
        (errors.NoPermissionError("no rights"), True),
        (errors.BusyLoadingError("LOADING"), False),
        (errors.ConnectionError("lost"), False),
    ],
)
async def test_only_an_answer_makes_it_known(error: Exception, is_known: bool) -> None:
    callers = Callers()
    await callers.come()
    callers.questions[0].set_exception(error)
    assert await callers.end() == [0] * is_known
    assert callers.asked.is_known == is_known


def test_without_an_event_loop() -> None:
    """As of callers that block, of whom nobody comes before the other."""
    asked = AskedOnce()
    begun: Callable[[], Awaitable[object]] = _answered
    for _ in range(2):
        learning = asked.learn(SHARD, begun)
        with pytest.raises(StopIteration):
            learning.send(None)
        assert asked.is_settled


async def _answered() -> None:
    """An answer that is there at once."""
