"""In one event loop commands are written in the order in which their calls began."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from channels_redis_fast.runtime.unconfirmed import _MOST
from support.polling import eventually
from support.refusing import RefusingProxy
from support.servers import Server
from support.syncing import KINDS

CHANNEL = "jobs"  # a normal one: with either layer it is a sorted set


async def begin(
    layer: Any, first: int, count: int, message: Any = None
) -> list[asyncio.Task[None]]:
    """Begins so many sends, each in another turn of the event loop."""
    tasks = []
    for n in range(first, first + count):
        sending = layer.send(CHANNEL, {"n": n, **(message or {})})
        tasks.append(asyncio.create_task(sending))
        await asyncio.sleep(0)
    return tasks


async def begin_until(layer: Any, done: Callable[[], Any]) -> list[asyncio.Task[None]]:
    """Begins sends, a few in each turn, until something is done; and a few more."""
    tasks: list[asyncio.Task[None]] = []
    while not done() and len(tasks) < 5_000:
        tasks += await begin(layer, len(tasks), 3)
        await asyncio.sleep(0.001)
    return tasks + await begin(layer, len(tasks), 20)


async def received(layer: Any, count: int) -> list[int]:
    """The numbers of what was sent, in the order of their keys."""
    got = [await asyncio.wait_for(layer.receive(CHANNEL), 10) for _ in range(count)]
    return [message["n"] for message in got]


async def in_order(layer: Any, tasks: list[asyncio.Task[None]]) -> None:
    """Whether all were sent, in the order in which they began."""
    await asyncio.gather(*tasks)
    await layer.flush_sends()
    assert await received(layer, len(tasks)) == list(range(len(tasks)))


@pytest.fixture(params=[True, False], ids=["confirmed", "unconfirmed"])
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes layers of a kind on a host."""

    def layer(kind: str, host: Any, **options: Any) -> Any:
        options = {"capacity": 100_000, "confirm_sends": request.param, **options}
        return KINDS[kind](hosts=[host], **options)

    return layer


@pytest.mark.parametrize("kind", KINDS)
def test_while_connecting(kind: str, make: Callable[..., Any], valkey: Server) -> None:
    """In a layer's first event loop, and in others, where healing hides nothing."""
    layer = make(kind, valkey.url)

    async def once() -> None:
        tasks = await begin_until(layer, lambda: tasks_done(layer))
        await in_order(layer, tasks)

    for _ in range(4):
        asyncio.run(once())


def tasks_done(layer: Any) -> bool:
    """Whether the running loop's connection is there."""
    local = layer._loops.existing()
    return local is not None and local.shards[0]._main.connection is not None


@pytest.mark.parametrize("again", range(3))
def test_who_joins_before_a_message_gets_it(valkey: Server, again: int) -> None:
    """Also in the moment in which the connection is there."""
    layer = KINDS["core"](hosts=[valkey.url], capacity=10_000)

    async def once() -> None:
        channel = await layer.new_channel()
        joining = asyncio.create_task(layer.group_add("room", channel))
        await asyncio.sleep(0)
        sends: list[asyncio.Task[None]] = []
        while not joining.done():
            message = {"n": len(sends)}
            sends.append(asyncio.create_task(layer.group_send("room", message)))
            await asyncio.sleep(0)
        await asyncio.gather(*sends)
        for n in range(len(sends)):
            assert await asyncio.wait_for(layer.receive(channel), 5) == {"n": n}
        await layer.group_discard("room", channel)

    for _ in range(3):
        asyncio.run(once())


@pytest.fixture
def refusing(valkey: Server) -> Iterator[RefusingProxy]:
    """The shared server behind a proxy that has it refuse."""
    with RefusingProxy(valkey) as proxy:
        yield proxy


@contextmanager
def refusal(proxy: RefusingProxy) -> Iterator[Callable[[], bool]]:
    """A refusal; whether it has been met."""
    before = proxy.requests.refused
    with proxy.refusing("NOREPLICAS Not enough good replicas to write."):
        yield lambda: proxy.requests.refused > before + 3


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_tried_again(
    kind: str, make: Callable[..., Any], refusing: RefusingProxy
) -> None:
    """It keeps its place before what began later."""
    layer = make(kind, refusing.url)
    await layer.send("other", {})  # the connection is there
    with refusal(refusing) as was_met:
        tasks = await begin_until(layer, was_met)
    tasks += await begin(layer, len(tasks), 50)
    await in_order(layer, tasks)
    await layer.close_pools()


async def test_forgotten_scripts(make: Callable[..., Any], valkey: Server) -> None:
    layer = make("core", valkey.url)
    await layer.send(CHANNEL, {"n": 0})
    await layer.flush_sends()
    tasks = await begin(layer, 1, 20)
    await asyncio.to_thread(valkey.client().script_flush)
    tasks += await begin(layer, 21, 100)
    await asyncio.gather(*tasks)
    await layer.flush_sends()
    assert await received(layer, 121) == list(range(121))
    await layer.close_pools()


async def paused(server: Server, work: Callable[[], Awaitable[Any]]) -> Any:
    """Does something while the server stands still."""
    server.pause()
    try:
        return await work()
    finally:
        server.resume()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_socket_that_is_full(
    kind: str, make: Callable[..., Any], server: Server
) -> None:
    layer = make(kind, server.url, command_timeout=20)
    await layer.send("other", {})
    await layer.flush_sends()
    large = {"text": "x" * 300_000}
    tasks = await paused(server, lambda: begin(layer, 0, 60, large))
    tasks += await begin(layer, 60, 20)
    await in_order(layer, tasks)
    await layer.close_pools()


async def test_those_who_wait_for_room(server: Server) -> None:
    """Before newcomers, in their order."""
    layer = KINDS["core"](
        hosts=[server.url], confirm_sends=False, capacity=10_000, command_timeout=20
    )
    await layer.send("other", {})
    await layer.flush_sends()
    tasks = await paused(server, lambda: begin(layer, 0, _MOST + 300))
    waiting = tasks[-1]
    assert not waiting.done()
    while not waiting.done():
        tasks += await begin(layer, len(tasks), 1)
    await in_order(layer, tasks)
    await layer.close_pools()


async def test_one_who_waits_for_room_and_is_cancelled(server: Server) -> None:
    """Holds up nobody, and is not sent."""
    layer = KINDS["core"](
        hosts=[server.url], confirm_sends=False, capacity=10_000, command_timeout=20
    )
    await layer.send("other", {})
    await layer.flush_sends()
    tasks = await paused(server, lambda: begin(layer, 0, _MOST))
    tasks += await paused(server, lambda: begin(layer, _MOST, 20))
    gone = [task for task in tasks[_MOST:] if not task.done() and task.cancel()]
    await eventually(lambda: all(task.done() for task in tasks), "the sends")
    await layer.flush_sends()
    left = [n for n, task in enumerate(tasks) if task not in gone]
    assert await received(layer, len(left)) == left
    assert layer._loops.engine().sends._queues[0].load == 0
    await layer.close_pools()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_clock_is_asked_for_until_it_is_known(
    kind: str, make: Callable[..., Any], valkey: Server
) -> None:
    """Not for as long as sends come without a gap; they stay in order."""
    layer = make(kind, valkey.url, symmetric_encryption_keys=["a key"])
    asked, count = [], layer._operations.count
    layer._operations.count = lambda name: asked.append(name) or count(name)
    tasks = await begin(layer, 0, 1)
    while not tasks[0].done():
        tasks += await begin(layer, len(tasks), 1)
    early = len(tasks)
    tasks += await begin(layer, early, 300)
    await in_order(layer, tasks)
    assert 0 < len(asked) <= early
    await layer.close_pools()
