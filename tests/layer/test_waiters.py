"""How tasks wait for messages, and what becomes of those they were given."""

from __future__ import annotations

import asyncio
import asyncio.tasks
import contextvars
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from channels_redis_fast.core import RedisChannelLayer
from support.layers import end, opened, soon
from support.servers import Server

MEMBERS = 5
HELLO = {"type": "hello", "list": [1]}


class Broken(Exception):
    """What a log handler of a test raises."""


number = contextvars.ContextVar[int]("number")


@pytest.fixture(params=["core", "pubsub"])
async def layer(request: pytest.FixtureRequest, valkey: Server) -> Any:
    if request.param == "core":
        async with opened(valkey.url) as found:
            yield found
        return
    from channels_redis_fast.pubsub import RedisPubSubChannelLayer

    found = RedisPubSubChannelLayer(hosts=[valkey.url])
    yield found
    await found.close_pools()


async def members(layer: Any) -> list[str]:
    """New channels in one group."""
    names = [await layer.new_channel() for _ in range(MEMBERS)]
    for name in names:
        await layer.group_add("room", name)
    return names


async def test_all_members_go_on_together(layer: Any) -> None:
    names = await members(layer)
    tasks = [asyncio.create_task(soon(layer, name)) for name in names]
    await asyncio.sleep(0)
    await layer.group_send("room", HELLO)
    received = await asyncio.gather(*tasks)
    assert received == [HELLO] * MEMBERS
    assert len({id(message["list"]) for message in received}) == MEMBERS


async def test_each_goes_on_in_its_context(layer: Any) -> None:
    async def read(name: str, n: int) -> int:
        number.set(n)
        await layer.receive(name)
        return number.get()

    names = await members(layer)
    tasks = [asyncio.create_task(read(name, n)) for n, name in enumerate(names)]
    await asyncio.sleep(0)
    await layer.group_send("room", HELLO)
    assert await asyncio.wait_for(asyncio.gather(*tasks), 10) == list(range(MEMBERS))


async def test_an_empty_context_is_one(layer: Any) -> None:
    """What a task sets after it received is there after its next wait, too."""

    async def read(name: str) -> int:
        await layer.receive(name)
        token = number.set(1)
        await asyncio.sleep(0)
        found = number.get()
        number.reset(token)
        return found

    name = await layer.new_channel()
    empty = contextvars.Context()
    reading = empty.run(asyncio.create_task, read(name))
    await asyncio.sleep(0)
    await layer.send(name, HELLO)
    assert await asyncio.wait_for(reading, 10) == 1


async def test_a_failing_log_handler_stops_nobody(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first who was given a message goes on, whatever is said of a later member."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    async with opened(valkey.url, capacity=1) as layer:
        names = [await layer.new_channel() for _ in range(2)]
        for name in names:
            await layer.group_add("room", name)

        class Failing(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                raise Broken

        failing = Failing()
        logging.getLogger("channels_redis_fast").addHandler(failing)
        try:
            for n in range(3):  # the second channel is full from the second on
                waiting = asyncio.create_task(soon(layer, names[0]))
                await asyncio.sleep(0)
                await layer.group_send("room", {"type": "n", "n": n})
                assert (await waiting)["n"] == n
        finally:
            logging.getLogger("channels_redis_fast").removeHandler(failing)
        assert list(layer.counters.values()) == [2]


def test_what_waits_stays_when_receiving_can_not_begin(valkey: Server) -> None:
    """In a loop that is being shut down nothing is received, and nothing lost."""
    layer = RedisChannelLayer(hosts=[valkey.url])
    name = None

    async def tell() -> AsyncIterator[None]:
        try:
            yield
        finally:
            (inbox,) = layer._mailboxes.owners.inboxes()
            while inbox.reader is not None:  # noqa: ASYNC110 - its end is under way
                await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="being shut down"):
                await layer.receive(name)

    async def main() -> None:
        nonlocal name
        name = await layer.new_channel()
        other = await layer.new_channel()
        for each in name, other:
            await layer.send(each, HELLO)
        await soon(layer, other)
        telling.append(tell())
        await telling[0].__anext__()

    telling: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, about: None)
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert layer.receive_buffer == {name: (HELLO,)}


async def test_what_a_neighbour_cancels_is_kept(layer: Any) -> None:
    """The first to go on cancels the others, who were given the same message."""
    names = await members(layer)
    others: list[asyncio.Task[Any]] = []

    async def first() -> None:
        await layer.receive(names[0])
        for task in others:
            assert task.cancel()

    leading = asyncio.create_task(first())
    others += [asyncio.create_task(layer.receive(name)) for name in names[1:]]
    await asyncio.sleep(0)
    await layer.group_send("room", HELLO)
    await asyncio.wait_for(leading, 10)
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in outcomes)
    for name in names[1:]:
        assert await soon(layer, name) == HELLO


async def test_what_one_gives_back_the_next_gets(layer: Any) -> None:
    """Cancelled with a message that was given: who waits on the same channel has it."""
    names = await members(layer)
    given: list[asyncio.Task[Any]] = []

    async def first() -> None:
        await layer.receive(names[0])
        assert given[0].cancel()

    leading = asyncio.create_task(first())
    given.append(asyncio.create_task(layer.receive(names[1])))
    await asyncio.sleep(0)
    next_ = asyncio.create_task(soon(layer, names[1]))
    await asyncio.sleep(0)
    await layer.group_send("room", HELLO)
    await asyncio.wait_for(leading, 10)
    assert await next_ == HELLO
    assert given[0].cancelled()


async def test_told_by_a_task(valkey: Server) -> None:
    """What a task puts into mailboxes wakes the others, who can't go on within it."""
    from channels_redis_fast.pubsub import RedisPubSubChannelLayer

    layer = RedisPubSubChannelLayer(hosts=[valkey.url], on_reconnect="back")
    names = [await layer.new_channel() for _ in range(MEMBERS)]
    tasks = [asyncio.create_task(soon(layer, name)) for name in names]
    await asyncio.sleep(0)
    layer._tell("on_reconnect")
    assert await asyncio.gather(*tasks) == [{"type": "back"}] * MEMBERS
    await layer.close_pools()


async def test_cancelled_before_anything_came(layer: Any) -> None:
    name = await layer.new_channel()
    for _ in range(3):
        task = asyncio.create_task(layer.receive(name))
        await asyncio.sleep(0)
        await end(task)
        assert task.cancelled()
    await layer.send(name, HELLO)
    assert await soon(layer, name) == HELLO


async def test_several_wait_on_one_channel(layer: Any) -> None:
    name = await layer.new_channel()
    tasks = [asyncio.create_task(soon(layer, name)) for _ in range(3)]
    await asyncio.sleep(0)
    for n in range(3):
        await layer.send(name, {"type": "n", "n": n})
    received = [message["n"] for message in await asyncio.gather(*tasks)]
    assert received == [0, 1, 2]


async def test_a_receive_that_is_collected_as_garbage(layer: Any) -> None:
    """What it was given goes back when nobody is at work on the mailboxes."""
    name = await layer.new_channel()
    await layer.send(name, HELLO)
    assert await soon(layer, name) == HELLO
    receiving = layer.receive(name).__await__()
    next(receiving)
    layer._mailboxes.put(None, [name], HELLO, None, asyncio.get_running_loop())
    receiving.close()
    assert not layer._mailboxes.snapshot()
    layer._mailboxes.sweep()
    assert await soon(layer, name) == HELLO


async def test_one_mailbox_for_a_name(layer: Any) -> None:
    """Though two begin to receive on a copied name at the same time."""
    mailboxes = layer._mailboxes
    held = mailboxes.new("name")
    waiting = mailboxes.begin("name")
    assert mailboxes.new("name") is held
    mailboxes.put(None, ["name"], HELLO, None, asyncio.get_running_loop())
    assert (await waiting)[1] == HELLO


async def test_tasks_in_pure_python(layer: Any) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, work, **options: _python_task(work, loop))
    try:
        name = await layer.new_channel()
        task = asyncio.create_task(layer.receive(name))
        await asyncio.sleep(0)
        await end(task)
        waiting = asyncio.create_task(layer.receive(name))
        await asyncio.sleep(0)
        await layer.send(name, HELLO)
        assert await waiting == HELLO
    finally:
        loop.set_task_factory(None)


def _python_task(work: Any, loop: asyncio.AbstractEventLoop) -> Any:
    return asyncio.tasks._PyTask(work, loop=loop)  # type: ignore[attr-defined]


if sys.version_info >= (3, 12):

    async def test_eager_tasks(layer: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        try:
            name = await layer.new_channel()
            waiting = asyncio.create_task(layer.receive(name))
            await layer.send(name, HELLO)
            assert await waiting == HELLO
        finally:
            loop.set_task_factory(None)


def test_the_end_of_one_leaves_the_others_going(valkey: Server) -> None:
    """A receiver that exits ends the loop, which runs on: all others got theirs."""
    layer = RedisChannelLayer(hosts=[valkey.url])
    loop = asyncio.new_event_loop()

    async def exiting(name: str) -> None:
        await layer.receive(name)
        raise SystemExit

    async def start() -> list[asyncio.Task[Any]]:
        names = await members(layer)
        tasks = [loop.create_task(exiting(names[0]))]
        tasks += [loop.create_task(layer.receive(name)) for name in names[1:]]
        await asyncio.sleep(0)
        return tasks

    async def send() -> None:
        await layer.group_send("room", HELLO)
        await asyncio.wait(tasks[1:], timeout=10)

    tasks = loop.run_until_complete(start())
    try:
        with pytest.raises(SystemExit):
            loop.run_until_complete(send())
        finished = asyncio.wait_for(asyncio.gather(*tasks[1:]), 10)
        assert loop.run_until_complete(finished) == [HELLO] * (MEMBERS - 1)
        with pytest.raises(SystemExit):
            tasks[0].result()
    finally:
        loop.run_until_complete(layer.close_pools())
        loop.close()
