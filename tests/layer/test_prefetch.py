"""`prefetch`: claimed in one round trip, handed back when nobody comes for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.polling import normal_channel
from support.layers import end, nothing, opened, soon
from support.loops import LoopThread
from support.peers import CORE
from support.polling import eventually
from support.refusing import RefusingProxy
from support.servers import Server

KEY = "asgiworker"
COUNT = 3_000


@pytest.fixture(params=["core", "pubsub"])
async def layer(
    valkey: Server, request: pytest.FixtureRequest
) -> AsyncIterator[RedisChannelLayer]:
    async with opened(valkey.url, kind=request.param, prefetch=4) as layer:
        yield layer


async def send(layer: RedisChannelLayer, count: int, start: int = 0) -> None:
    """Numbered messages for the workers."""
    for n in range(start, start + count):
        await layer.send("worker", {"n": n})


async def numbers(layer: RedisChannelLayer, count: int) -> list[int]:
    """The next messages' numbers."""
    return [(await soon(layer, "worker"))["n"] for _ in range(count)]


def stored(server: Server) -> list[tuple[bytes, float]]:
    """What waits at Redis, with its scores."""
    found: Any = server.client().zrange(KEY, 0, -1, withscores=True)
    return list(found)


def _run_and_close(work: Any) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(work)
    loop.close()


# Claimed


@pytest.mark.parametrize("prefetch", [1, 2, 4, 100])
async def test_how_many_are_claimed(valkey: Server, prefetch: int) -> None:
    async with opened(valkey.url, prefetch=prefetch) as layer:
        await send(layer, 10)
        assert await numbers(layer, 1) == [0]
        assert len(stored(valkey)) == max(0, 10 - prefetch)
        assert await numbers(layer, 9) == list(range(1, 10))
        await send(layer, 1, start=10)
        assert await numbers(layer, 1) == [10]


async def test_several_wait(layer: RedisChannelLayer) -> None:
    waiting = [asyncio.create_task(numbers(layer, 3)) for _ in range(7)]
    await send(layer, 21)
    got = await asyncio.gather(*waiting)
    assert sorted(n for some in got for n in some) == list(range(21))
    assert all(some == sorted(some) for some in got)


async def test_from_each_shard(valkey: Server, redis62: Server) -> None:
    async with opened(valkey.url, redis62.url, prefetch=4) as layer:
        await send(layer, 20)
        got = await numbers(layer, 1)
        assert len(stored(valkey)) >= 10 - 4
        assert len(stored(redis62)) >= 10 - 4
        got += await numbers(layer, 19)
        assert sorted(got) == list(range(20))
        for shard in 0, 1:
            mine = [n for n in got if n % 2 == shard]
            assert mine == sorted(mine)


async def test_unreadable_ones(layer: RedisChannelLayer, valkey: Server) -> None:
    await send(layer, 1)
    valkey.client().zadd(KEY, {b"\xc1" * 20: stored(valkey)[0][1] + 1e-6})
    await send(layer, 1, start=1)
    assert await numbers(layer, 2) == [0, 1]
    assert layer.counters == {"unreadable": 1}


# Handed back


async def test_closed(layer: RedisChannelLayer, valkey: Server) -> None:
    await send(layer, 10)
    before = stored(valkey)
    assert await numbers(layer, 1) == [0]
    await layer.close_pools()
    assert stored(valkey) == before[1:]
    async with opened(valkey.url) as other:
        assert await numbers(other, 9) == list(range(1, 10))


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancelled_close_goes_on(
    layer: RedisChannelLayer, valkey: Server, steps: int
) -> None:
    await send(layer, 10)
    before = stored(valkey)
    assert await numbers(layer, 1) == [0]
    closing = asyncio.create_task(layer.close_pools())
    for _ in range(steps):
        await asyncio.sleep(0)
    await end(closing)
    if not steps:  # it did not begin
        await layer.close_pools()
    await eventually(lambda: stored(valkey) == before[1:], "all to be put back")
    await eventually(lambda: len(valkey.client().client_list()) == 1, "the end")


@pytest.mark.parametrize("run", [_run_and_close, asyncio.run])
@pytest.mark.parametrize("steps", range(6))
async def test_a_cancelled_close_at_the_end_of_its_loop(
    valkey: Server, run: Callable[[Any], None], steps: int
) -> None:
    """Which may come before what closes the connections had begun."""
    layer = RedisChannelLayer(hosts=[valkey.url], prefetch=4)

    async def work() -> None:
        await send(layer, 10)
        assert await numbers(layer, 1) == [0]
        closing.append(asyncio.create_task(layer.close_pools()))
        for _ in range(steps):
            await asyncio.sleep(0)
        if steps:
            closing[0].cancel()

    closing: list[asyncio.Task[None]] = []
    await asyncio.to_thread(run, work())
    await eventually(lambda: len(valkey.client().client_list()) == 1, "the end")
    assert len(stored(valkey)) == 9


async def test_closed_while_somebody_waits(
    layer: RedisChannelLayer, valkey: Server
) -> None:
    """Who waits goes on at the next receiver."""
    waiting = asyncio.create_task(numbers(layer, 10))
    await send(layer, 2)
    await eventually(lambda: not stored(valkey), "the first to be read")
    await layer.close_pools()
    await send(layer, 8, start=2)
    assert await waiting == list(range(10))


async def test_the_end_of_its_loop(valkey: Server) -> None:
    layer = RedisChannelLayer(hosts=[valkey.url], prefetch=4)

    async def work() -> None:
        await send(layer, 10)
        assert await numbers(layer, 1) == [0]

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    await eventually(lambda: not thread.is_alive(), "the end of the loop")
    assert len(stored(valkey)) == 9


async def test_cancelled(layer: RedisChannelLayer, valkey: Server) -> None:
    """On return nothing is on its way to whom nobody waits for."""
    for n in range(50):
        task = asyncio.create_task(layer.receive("worker"))
        for _ in range(n % 7):
            await asyncio.sleep(0)
        if n % 2:
            await send(layer, 6, start=6 * n)
        await end(task)
        if task.cancelled():
            assert len(stored(valkey)) == 6 * (n % 2)
        if n % 2:
            rest = range(6 * n + (not task.cancelled()), 6 * n + 6)
            assert await numbers(layer, len(rest)) == list(rest)
        assert await nothing(layer, "worker")


async def test_not_come_for(
    layer: RedisChannelLayer, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others get what a slow reader claimed."""
    monkeypatch.setattr(normal_channel, "_LONGEST_HOLD", 0.3)
    async with opened(valkey.url) as other:
        await send(layer, 4)
        before = stored(valkey)
        assert await numbers(layer, 1) == [0]
        assert not stored(valkey)
        await eventually(lambda: stored(valkey) == before[1:], "them to be back")
        assert await numbers(other, 1) == [1]
        assert await numbers(layer, 2) == [2, 3]


async def test_come_for_late(
    layer: RedisChannelLayer, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order, also with those that were sent meanwhile."""
    monkeypatch.setattr(normal_channel, "_LONGEST_HOLD", 0.0)
    await send(layer, 10)
    assert await numbers(layer, 10) == list(range(10))


async def test_expiry(valkey: Server) -> None:
    """What is handed back gets no younger."""
    async with opened(valkey.url, prefetch=4, expiry=2) as layer:
        await send(layer, 4)
        began = asyncio.get_running_loop().time()
        assert await numbers(layer, 1) == [0]
        await eventually(lambda: len(stored(valkey)) == 3, "them to be back")
        await eventually(lambda: not stored(valkey), "them to expire")
        assert asyncio.get_running_loop().time() - began < 4
        assert await nothing(layer, "worker")


async def test_too_old_to_be_put_back(valkey: Server) -> None:
    async with opened(valkey.url, prefetch=4) as layer:
        await send(layer, 3)
        (_, score), *_ = stored(valkey)
        for member, _ in stored(valkey)[1:]:
            valkey.client().zadd(KEY, {member: score - 61})
        assert sorted(await numbers(layer, 1)) == [1]
        await layer.close_pools()
        (left,) = stored(valkey)
        assert left[1] == score
        assert 55 <= valkey.client().ttl(KEY) <= 60


async def test_flush_drops_them(layer: RedisChannelLayer) -> None:
    await send(layer, 10)
    assert await numbers(layer, 1) == [0]
    await layer.flush()
    assert await nothing(layer, "worker")


async def test_flush_drops_those_of_other_loops_there(
    layer: RedisChannelLayer, threads: list[LoopThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their loops may be at work on them."""
    other, _ = threads
    await send(layer, 3)
    assert other.run(layer.receive("worker")) == {"n": 0}
    where: list[Any] = []
    forget = normal_channel.NormalChannelReader.forget

    def note(receiver: Any) -> None:
        where.append((asyncio.get_running_loop(), receiver._loop))
        forget(receiver)

    monkeypatch.setattr(normal_channel.NormalChannelReader, "forget", note)
    await layer.flush()
    await eventually(lambda: where, "the other loop")
    assert where == [(other.loop, other.loop)]
    await layer.send("worker", {"n": 3})
    assert await asyncio.wrap_future(other.begin(soon(layer, "worker"))) == {"n": 3}


async def test_redis_goes_away(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was claimed is still there, also when it should have gone back."""
    monkeypatch.setattr(normal_channel, "_LONGEST_HOLD", 0.5)
    clock = asyncio.get_running_loop().time
    async with opened(server.url, prefetch=10) as layer:
        await send(layer, 10)
        assert await numbers(layer, 1) == [0]
        server.kill()
        until = clock() + 0.5
        await eventually(lambda: clock() > until, "the time that they are kept")
        with pytest.raises(errors.ConnectionError):
            await layer.send("worker", {})
        assert await numbers(layer, 9) == list(range(1, 10))
        assert layer.counters == {}


async def test_redis_takes_nothing_back(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it refuses stays here, for who comes next."""
    monkeypatch.setattr(normal_channel, "_LONGEST_HOLD", 0.01)
    with RefusingProxy(valkey) as proxy:
        async with opened(proxy.url, prefetch=10, command_timeout=0.3) as layer:
            await send(layer, 10)
            assert await numbers(layer, 1) == [0]
            reader = layer._loops.engine()._channels["worker"]
            with proxy.refusing("NOREPLICAS Not enough good replicas to write."):
                await eventually(
                    lambda: reader.recall() or reader._returns.under_way, "their return"
                )
                await reader._returns.finish()
            assert proxy.requests.refused
            assert await numbers(layer, 9) == list(range(1, 10))
            assert layer.counters == {}


# Several processes


async def test_each_exactly_once(
    valkey: Server, start_peer: Callable[..., Any]
) -> None:
    config = {"hosts": [valkey.url], "capacity": COUNT, "prefetch": 50}
    readers = [await start_peer(CORE, config) for _ in range(2)]
    sender = await start_peer(CORE, config)
    collecting = [
        peer.begin("collect", "worker", timeout=30, idle=2, readers=2)
        for peer in readers
    ]
    burst = await sender.burst("worker", COUNT, senders=10)
    assert len(burst["accepted"]) == COUNT
    got = [n for answer in await asyncio.gather(*collecting) for n in _numbers(answer)]
    assert sorted(got) == list(range(COUNT))


@pytest.mark.slow
async def test_impatient_readers(
    valkey: Server, start_peer: Callable[..., Any]
) -> None:
    """A storm of cancellations loses and doubles nothing."""
    config = {"hosts": [valkey.url], "capacity": COUNT, "prefetch": 50}
    readers = [await start_peer(CORE, config) for _ in range(2)]
    sender = await start_peer(CORE, config)
    collecting = [
        peer.begin("collect", "worker", timeout=30, idle=2, readers=3, impatience=0.003)
        for peer in readers
    ]
    await sender.burst("worker", COUNT, senders=2, pause=0.0005)
    answers = await asyncio.gather(*collecting)
    assert all(answer["cancelled"] > 10 for answer in answers)
    assert not any(answer["errors"] for answer in answers)
    got = [n for answer in answers for n in _numbers(answer)]
    assert sorted(got) == list(range(COUNT))


async def test_a_crash_loses_what_was_claimed(
    valkey: Server, start_peer: Callable[..., Any]
) -> None:
    reader = await start_peer(CORE, {"hosts": [valkey.url], "prefetch": 10})
    async with opened(valkey.url) as layer:
        await send(layer, 50)
        assert (await reader.receive("worker"))["n"] == 0
        reader.kill()
        assert await numbers(layer, 40) == list(range(10, 50))
        assert await nothing(layer, "worker")


def _numbers(answer: dict[str, Any]) -> list[int]:
    return [number for _, number in answer["received"]]


async def test_no_reader_is_idle_while_one_of_its_callers_is_about_to_leave(
    valkey: Server,
) -> None:
    """Else one that was closed meanwhile came back, in the place of the next one."""
    async with opened(valkey.url) as layer:
        await send(layer, 2)

        async def receive() -> bool:
            await layer.receive("worker")
            return "worker" in layer._loops.engine()._idle

        both = asyncio.gather(receive(), receive())  # who get them in one turn
        assert await asyncio.wait_for(both, 10) == [False, True]
