"""One channel, many readers: each message to one of them, in its sender's order."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.layers import end, opened, persist, soon
from support.peers import CORE
from support.polling import eventually
from support.servers import Server, kept

MESSAGES = 100_000


@pytest.mark.slow
async def test_each_message_to_one_reader(
    valkey: Server, start_peer: Callable[..., Any]
) -> None:
    """Four processes read a channel, and are cancelled again and again."""
    config = {"hosts": [valkey.url], "capacity": 1000}
    readers = [await start_peer(CORE, config) for _ in range(4)]
    sender = await start_peer(CORE, config)
    collecting = [
        reader.begin(
            "collect", "worker", timeout=600, idle=2, readers=2, impatience=0.02
        )
        for reader in readers
    ]
    sent = await sender.burst("worker", MESSAGES, senders=40, patient=True)
    assert len(sent["accepted"]) == MESSAGES
    answers = await asyncio.gather(*collecting)
    received = [number for one in answers for _, number in one["received"]]
    assert sorted(received) == list(range(MESSAGES))
    assert all(len(one["received"]) > MESSAGES / 40 for one in answers)
    assert sum(one["cancelled"] for one in answers) > 100
    assert not any(one["errors"] for one in answers)
    assert not kept(valkey.client())


@pytest.mark.parametrize("hosts", [1, 2, 3])
@pytest.mark.slow
async def test_a_worker_takes_one_at_a_time(
    start_server: Callable[..., Server], start_peer: Callable[..., Any], hosts: int
) -> None:
    """One that is busy, or stuck, keeps nothing from the others."""
    servers = [start_server() for _ in range(hosts)]
    config = {"hosts": [server.url for server in servers]}
    busy, free, sender = [await start_peer(CORE, config) for _ in range(3)]
    for _ in range(3):
        waiting = busy.begin("receive", "worker", 20)
        await busy.send("other", {})  # by now it waits
        await sender.burst("worker", 1)
        assert (await waiting)["n"] == 0
        busy.pause()
        burst = await sender.burst("worker", 20, start=1)
        got = await free.collect("worker", 20, timeout=3)
        busy.resume()
        numbers = {number for _, number in got["received"]}
        assert numbers == set(burst["accepted"]), "one was kept by the busy worker"


@pytest.mark.parametrize("channel", ["process", "normal"])
@pytest.mark.parametrize("clock", ["stands still", "runs backwards", "jumps"])
async def test_the_senders_clock_does_not_matter(
    valkey: Server, monkeypatch: pytest.MonkeyPatch, channel: str, clock: str
) -> None:
    real, count = time.time, 300
    started = real()
    clocks = {
        "stands still": lambda: started,
        "runs backwards": lambda: 2 * started - real(),
        "jumps": lambda: real() + random.uniform(-1e6, 1e6),
    }
    async with (
        opened(valkey.url, capacity=count) as layer,
        opened(valkey.url, capacity=count) as other,
    ):
        name = "worker" if channel == "normal" else await layer.new_channel()
        monkeypatch.setattr(time, "time", clocks[clock])
        for n in range(count):
            await (layer, other)[n % 2].send(name, {"n": n})
        got = [(await soon(layer, name))["n"] for _ in range(count)]
    assert got == list(range(count))


@pytest.mark.parametrize(
    "prefix",
    [0, 12, *(pytest.param(length, marks=pytest.mark.slow) for length in (4, 20))],
)
async def test_order_in_a_burst(valkey: Server, prefix: int) -> None:
    """Written together and stored in the same microsecond, in the order of sending."""
    count = 1_000
    options = {"capacity": count, "random_prefix_length": prefix}
    async with opened(valkey.url, **options) as layer:
        sends = [layer.send("worker", {"n": n}) for n in range(count)]
        await asyncio.gather(*sends)
        stored = valkey.client().zrange("asgiworker", 0, -1, withscores=True)
        scores = [score for _, score in stored]
        assert len(set(scores)) == count
        assert abs(scores[-1] - time.time()) < 5
        got = [(await soon(layer, "worker"))["n"] for _ in range(count)]
    assert got == list(range(count))


@pytest.mark.parametrize("ahead", [-30, 0.5, 50])
async def test_order_across_a_failover_to_another_clock(
    valkey: Server, ahead: float
) -> None:
    """What the old primary stored comes first, as long as it has not expired."""
    client = valkey.client()
    async with opened(valkey.url) as layer:
        await layer.send("worker", {"n": 0})
        ((member, score),) = client.zrange("asgiworker", 0, -1, withscores=True)
        client.zadd("asgiworker", {member: score + ahead})
        for n in range(1, 50):
            await layer.send("worker", {"n": n})
        got = [(await soon(layer, "worker"))["n"] for _ in range(50)]
    assert got == list(range(50))


async def test_a_clock_that_was_wrong_is_forgotten(valkey: Server) -> None:
    """A message from the far future doesn't take all others there."""
    client = valkey.client()
    async with opened(valkey.url, expiry=0.5) as layer:
        await layer.send("worker", {"n": 0})
        ((member, score),) = client.zrange("asgiworker", 0, -1, withscores=True)
        client.zadd("asgiworker", {member: score + 1e6})
        await layer.send("worker", {"n": 1})
        ((_, later), _) = client.zrange("asgiworker", 0, -1, withscores=True)
        assert later - time.time() < 1


@pytest.mark.parametrize("hosts", [1, 2])
async def test_what_is_put_back_keeps_its_place(
    start_server: Callable[..., Server], hosts: int
) -> None:
    """Readers that are cancelled when the message is already theirs."""
    count = 200
    urls = [start_server().url for _ in range(hosts)]
    async with opened(*urls, capacity=count) as layer:
        for n in range(count):
            await layer.send("worker", {"n": n})
        cancelled = 0
        got: list[int] = []
        while len(got) < count:
            waiting = asyncio.create_task(layer.receive("worker"))
            for _ in range(random.randrange(12)):
                await asyncio.sleep(0)
            await end(waiting)
            if waiting.cancelled():
                cancelled += 1
            else:
                got.append(waiting.result()["n"])
            if random.random() < 0.2 and len(got) < count:
                got.append((await soon(layer, "worker"))["n"])
        assert cancelled
        for shard in range(hosts):
            mine = [n for n in got if n % hosts == shard]
            assert mine == sorted(mine)
        assert sorted(got) == list(range(count))
        assert layer.counters == {}


@pytest.mark.slow
async def test_a_hundred_waiters_of_which_most_go(valkey: Server) -> None:
    count = 300
    async with opened(valkey.url, capacity=count) as layer:
        got: list[int] = []

        async def read() -> None:
            got.append((await layer.receive("worker"))["n"])

        for n in range(count):
            readers = [asyncio.create_task(read()) for _ in range(5)]
            await persist(layer, "worker", {"n": n})
            for reader in random.sample(readers, 4):
                reader.cancel()
            await eventually(lambda: len(got) > n, "the message")  # noqa: B023
            await end(*readers)
        assert sorted(got) == list(range(count))
        assert layer.counters == {}
