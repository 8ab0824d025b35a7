"""Event loops: several at once, one after the other, and how they end."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from asgiref.sync import async_to_sync

from channels_redis_fast.core import RedisChannelLayer
from support.layers import end, opened, persist, soon
from support.loops import LOOPS, LoopThread, Runner
from support.polling import eventually, until
from support.servers import Server


@pytest.fixture
def layer(valkey: Server) -> RedisChannelLayer:
    return RedisChannelLayer(hosts=[valkey.url])


def sockets() -> int:
    """How many TCP connections this process has."""
    kinds = psutil.Process().net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED for one in kinds)


# At once


def test_two_loops_receive(layer: RedisChannelLayer, threads: list[LoopThread]) -> None:
    names = [thread.run(layer.new_channel()) for thread in threads]

    async def read(name: str) -> list[int]:
        return [(await soon(layer, name))["n"] for _ in range(200)]

    async def write() -> None:
        for n in range(200):
            for name in names:
                await persist(layer, name, {"n": n})

    reading = [
        thread.begin(read(name)) for thread, name in zip(threads, names, strict=True)
    ]
    async_to_sync(write)()
    for one in reading:
        assert one.result(20) == list(range(200))
    assert layer.counters == {}


def test_two_loops_receive_on_one_normal_channel(
    layer: RedisChannelLayer, threads: list[LoopThread]
) -> None:
    async def read() -> list[int]:
        return [(await soon(layer, "worker"))["n"] for _ in range(50)]

    reading = [thread.begin(read()) for thread in threads]
    for n in range(100):
        threads[n % 2].run(layer.send("worker", {"n": n}))
    numbers = [n for one in reading for n in one.result(20)]
    assert sorted(numbers) == list(range(100))


def test_the_other_loop_takes_over(
    layer: RedisChannelLayer, threads: list[LoopThread]
) -> None:
    """The loop that reads for both ends while the other waits."""
    first, second = threads
    names = [first.run(layer.new_channel()) for _ in range(2)]
    first.run(layer.send(names[0], {"n": 0}))
    assert first.run(soon(layer, names[0])) == {"n": 0}
    waiting = second.begin(soon(layer, names[1]))
    second.run(layer.send(names[0], {"n": 1}))
    first.close()
    second.run(layer.send(names[1], {"n": 2}))
    assert waiting.result(20) == {"n": 2}
    assert second.run(soon(layer, names[0])) == {"n": 1}
    assert layer.counters == {}


def test_channels_ended_in_the_other_loop(
    valkey: Server, threads: list[LoopThread]
) -> None:
    """All channels end, tidied up by the loop that doesn't read; new ones work."""
    layer = RedisChannelLayer(hosts=[valkey.url], expiry=0.1)
    first, second = threads
    old = first.run(layer.new_channel())
    first.run(layer.send(old, {"n": 0}))
    assert first.run(soon(layer, old)) == {"n": 0}
    second.run(layer.send("worker", {"n": 0}))
    for _ in range(20):
        del old
        gc.collect()
        until(lambda: not layer._mailboxes.owners.inboxes(), "the channel to end")
        old = second.run(layer.new_channel())
        for n in range(10):
            second.run(layer.send(old, {"n": n}))
            assert second.run(soon(layer, old)) == {"n": n}
    assert layer.counters == {}
    readers = [one for one in valkey.clients() if one["cmd"] == "bzpopmin"]
    assert len(readers) == 1


def test_cancelled_in_a_busy_loop(
    layer: RedisChannelLayer, threads: list[LoopThread]
) -> None:
    """Its mailbox is full by then; nothing that was accepted goes."""
    reader, busy = threads
    name, other = (reader.run(layer.new_channel()) for _ in range(2))
    reader.run(layer.send(other, {}))
    assert reader.run(soon(layer, other)) == {}
    waits, full = threading.Event(), threading.Event()

    async def cancel() -> list[int]:
        tasks = [asyncio.ensure_future(layer.receive(name)) for _ in range(2)]
        await asyncio.sleep(0)
        waits.set()
        assert full.wait(20)  # while messages come
        await end(*tasks)
        return [(await soon(layer, name))["n"] for _ in range(count)]

    received = busy.begin(cancel())
    assert waits.wait(20)
    count = layer.capacity + 2

    async def send() -> None:
        for n in range(count):
            await persist(layer, name, {"n": n})

    reader.run(send())
    full.set()
    assert received.result(20) == list(range(count))
    assert layer.counters == {}


@pytest.mark.slow
def test_many_threads_begin_and_end_loops(layer: RedisChannelLayer) -> None:
    def work(thread: int) -> None:
        for n in range(20):
            async_to_sync(layer.send)(f"to.{thread}", {"n": n})
            assert async_to_sync(soon)(layer, f"to.{thread}") == {"n": n}

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


# One after the other


def test_made_here_received_there(layer: RedisChannelLayer) -> None:
    name = async_to_sync(layer.new_channel)()
    async_to_sync(layer.group_add)("room", name)
    async_to_sync(layer.send)(name, {"n": 1})
    async_to_sync(layer.group_send)("room", {"n": 2})
    assert [async_to_sync(soon)(layer, name) for _ in range(2)] == [{"n": 1}, {"n": 2}]
    async_to_sync(layer.group_discard)("room", name)
    async_to_sync(layer.group_send)("room", {"n": 3})
    async_to_sync(layer.send)(name, {"n": 4})
    assert async_to_sync(soon)(layer, name) == {"n": 4}
    async_to_sync(layer.send)("worker", {"n": 5})
    assert async_to_sync(soon)(layer, "worker") == {"n": 5}
    async_to_sync(layer.flush)()
    async_to_sync(layer.close_pools)()
    async_to_sync(layer.wait_received)()
    assert layer.counters == {}


def test_from_a_thread_of_a_running_loop(layer: RedisChannelLayer) -> None:
    """`async_to_sync` there runs in the loop that is there already."""

    async def main() -> None:
        name = await layer.new_channel()
        send = async_to_sync(layer.send)
        await asyncio.gather(*(asyncio.to_thread(send, name, {}) for _ in range(50)))
        assert [await soon(layer, name) for _ in range(50)] == [{}] * 50

    asyncio.run(main())


@pytest.mark.parametrize("count", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_many_loops_leave_nothing(
    layer: RedisChannelLayer, valkey: Server, new_loop: Callable[[], Any], count: int
) -> None:
    before = sockets()

    async def main(n: int) -> None:
        name = await layer.new_channel()
        waiting = asyncio.ensure_future(layer.receive(name))
        worker = asyncio.ensure_future(layer.receive("worker"))
        await layer.group_add("room", name)
        await layer.group_send("room", {"n": n})
        assert await waiting == {"n": n}
        await end(worker)

    with Runner(loop_factory=new_loop) as runner:
        runner.run(main(-1))
    for n in range(count):
        with Runner(loop_factory=new_loop) as runner:
            runner.run(main(n))
    assert sockets() == before
    assert not layer._loops.all()
    until(lambda: not valkey.clients(), "the server to see them go")


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS, indirect=True)
def test_a_loop_closed_without_shutdown(
    layer: RedisChannelLayer, valkey: Server, new_loop: Callable[[], Any]
) -> None:
    before = sockets()
    for n in range(20):
        loop = new_loop()
        name = loop.run_until_complete(layer.new_channel())
        loop.run_until_complete(layer.send(name, {"n": n}))
        assert loop.run_until_complete(soon(layer, name)) == {"n": n}
        loop.close()
        loop.close()
    assert sockets() == before
    until(lambda: not valkey.clients(), "the server to see them go")


def test_messages_outlive_the_loop_that_read_them(layer: RedisChannelLayer) -> None:
    names = asyncio.run(_made(layer, 2))

    async def one() -> None:
        for n in range(20):
            await layer.send(names[1], {"n": n})
        await layer.send(names[0], {"n": -1})
        assert await soon(layer, names[0]) == {"n": -1}

    asyncio.run(one())
    got = [asyncio.run(soon(layer, names[1]))["n"] for _ in range(20)]
    assert got == list(range(20))


async def _made(layer: RedisChannelLayer, count: int) -> list[str]:
    return [await layer.new_channel() for _ in range(count)]


def test_a_wait_cut_short_by_the_end_of_its_loop(layer: RedisChannelLayer) -> None:
    """Normal channels: a message taken by a loop that ends is put back."""

    async def wait() -> None:
        waiting = asyncio.ensure_future(layer.receive("worker"))
        await asyncio.sleep(0.01)
        await layer.send("worker", {"n": 1})
        assert not waiting.cancelled()

    for _ in range(20):
        asyncio.run(wait())  # which cancels the wait
    got = 0
    for _ in range(20):
        try:
            asyncio.run(soon(layer, "worker", 0.05))
        except asyncio.TimeoutError:
            break
        got += 1
    # What was handed over before the end was received.
    assert got <= 20
    assert layer.counters == {}


def test_closing_pools_again_and_again(layer: RedisChannelLayer) -> None:
    async def main() -> None:
        for _ in range(1_500):
            layer._loops.engine()
            await layer.close_pools()
        await layer.send("worker", {"n": 1})

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()


def test_only_blocking_callers(valkey: Server) -> None:
    """A process without a lasting loop tidies up too."""
    layer = RedisChannelLayer(hosts=[valkey.url], expiry=0.1)
    for _ in range(200):
        name = async_to_sync(layer.new_channel)()
        async_to_sync(layer.group_add)("room", name)
    del name
    gc.collect()

    def calls_again() -> bool:
        async_to_sync(layer.send)("worker", {})
        async_to_sync(soon)(layer, "worker")
        return not len(layer._mailboxes)

    until(calls_again, "the channels to end")
    assert not layer._memberships._left  # the loop that saw it gave the memberships up
    assert len(layer._memberships) == 0
    assert not valkey.client().exists("asgi:group:room")


async def test_a_loop_closed_with_waiters(
    valkey: Server, new_loop: Callable[[], Any]
) -> None:
    """Who waited in a loop that is closed doesn't wait any more."""
    async with opened(valkey.url, expiry=0.2) as layer:
        thread = LoopThread(new_loop())
        name = await layer.new_channel()
        waiting = thread.begin(layer.receive(name))
        await layer.group_add("room", name)
        (inbox,) = layer._mailboxes.owners.inboxes()
        await eventually(
            lambda: layer._mailboxes.owners.waiting_loops(inbox), "the wait"
        )
        thread.close()
        assert not waiting.done()
        assert not layer._mailboxes.owners.waiting_loops(inbox)
        await layer.send(name, {"n": 1})
        assert await soon(layer, name) == {"n": 1}
        del name, waiting
        gc.collect()
        await eventually(lambda: not len(layer._mailboxes), "the channel to end")
        group = "asgi:group:room"
        await eventually(lambda: not valkey.client().exists(group), "the member to go")
