"""What was accepted arrives: bounds, busy neighbours, cancelled and idle receivers."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from channels.exceptions import ChannelFull
from redis import exceptions as errors

from channels_redis_fast.client.shard import Shard
from channels_redis_fast.core import RedisChannelLayer
from support.certificates import Certificates
from support.layers import end, nothing, opened, persist, soon
from support.polling import eventually
from support.proxy import Proxy
from support.servers import Server, kept
from support.tlsfront import TLSFront

# Of messages; `make test` does with fewer.
counts = pytest.mark.parametrize(
    "count", [300, pytest.param(1_000, marks=pytest.mark.slow)]
)


@pytest.fixture
async def layer(valkey: Server) -> AsyncIterator[RedisChannelLayer]:
    async with opened(valkey.url) as layer:
        yield layer


@pytest.fixture(params=["process", "normal"])
async def channel(request: pytest.FixtureRequest, layer: RedisChannelLayer) -> str:
    """A channel of the layer, of either kind."""
    return await layer.new_channel() if request.param == "process" else "worker"


class Steady:
    """Reads one channel for as long as the test lasts."""

    def __init__(self, layer: RedisChannelLayer, channel: str) -> None:
        self.numbers: list[int] = []
        self._task = asyncio.create_task(self._read(layer, channel))

    async def _read(self, layer: RedisChannelLayer, channel: str) -> None:
        while True:
            self.numbers.append((await layer.receive(channel))["n"])

    async def until(self, count: int) -> list[int]:
        """The numbers received, when there are so many; ends the reader."""
        try:
            await eventually(
                lambda: self._task.done() or len(self.numbers) >= count,
                f"{count} messages, of which came {len(self.numbers)}",
                timeout=30,
            )
        finally:
            await end(self._task)
        return self.numbers


# Bounds


@pytest.mark.parametrize("kind", ["process", "normal"])
@pytest.mark.parametrize(
    "capacity",
    [1, 10, *(pytest.param(many, marks=pytest.mark.slow) for many in (2, 100))],
)
@counts
async def test_a_fast_sender_loses_nothing_accepted(
    valkey: Server, capacity: int, kind: str, count: int
) -> None:
    async with opened(valkey.url, capacity=capacity) as layer:
        channel = await layer.new_channel() if kind == "process" else "worker"
        reader = Steady(layer, channel)
        accepted: list[int] = []
        for n in range(count):
            try:
                await layer.send(channel, {"n": n})
            except ChannelFull:
                await asyncio.sleep(0)
            else:
                accepted.append(n)
        assert await reader.until(len(accepted)) == accepted
        assert await nothing(layer, channel)
        assert layer.counters == {}


@pytest.mark.parametrize(
    "capacity",
    [1, 10, *(pytest.param(many, marks=pytest.mark.slow) for many in (2, 100))],
)
@counts
async def test_many_fast_senders_lose_nothing_accepted(
    valkey: Server, capacity: int, count: int
) -> None:
    async with opened(valkey.url, capacity=capacity) as layer:
        channel = await layer.new_channel()
        reader = Steady(layer, channel)
        accepted: list[int] = []

        async def work(numbers: range) -> None:
            for n in numbers:
                await persist(layer, channel, {"n": n})
                accepted.append(n)

        await asyncio.gather(*(work(range(i, count, 20)) for i in range(20)))
        assert len(accepted) == count
        received = await reader.until(count)
        assert sorted(received) == sorted(accepted)
        for i in range(20):  # in the order of each sender
            mine = [n for n in received if n % 20 == i]
            assert mine == sorted(mine)


@pytest.mark.parametrize("began", [False, True], ids=["never-read", "read-once"])
@pytest.mark.parametrize("capacity", [1, 2, 10, 100])
async def test_who_does_not_read_fills_the_channel(
    valkey: Server, capacity: int, began: bool
) -> None:
    async with opened(valkey.url, capacity=capacity) as layer:
        name = await layer.new_channel()
        if began:
            await layer.send(name, {"n": -1})
            await soon(layer, name)
        accepted: list[int] = []
        with pytest.raises(ChannelFull, match=name):
            await _send_until_full(layer, name, accepted)
        # In Redis, and what this process fetched before it stopped to.
        assert capacity <= len(accepted) <= 2 * capacity + 1
        for n in accepted:
            assert await soon(layer, name) == {"n": n}
        assert await nothing(layer, name)
        assert layer.counters == {}


async def _send_until_full(
    layer: RedisChannelLayer, channel: str, accepted: list[int]
) -> None:
    for n in range(1_000):
        await layer.send(channel, {"n": n})
        accepted.append(n)


async def test_who_does_not_read_while_a_neighbour_does(
    valkey: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(valkey.url, capacity=10) as layer:
        lazy, busy = [await layer.new_channel() for _ in range(2)]
        for n in range(50):
            await layer.send(lazy, {"n": n})
            await layer.send(busy, {"n": n})
            assert await soon(layer, busy) == {"n": n}
        kept = [await soon(layer, lazy) for _ in range(10)]
        assert kept == [{"n": n} for n in range(40, 50)]
        assert await nothing(layer, lazy)
    (dropped,) = layer.counters.values()
    assert dropped == 40
    lines = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert lazy in lines[0].getMessage()


# Neighbours that come and go


@counts
async def test_a_steady_reader_among_others_that_come_and_go(
    layer: RedisChannelLayer, count: int
) -> None:
    steady, busy = Steady(layer, name := await layer.new_channel()), True
    turns = 0

    async def come_and_go() -> None:
        nonlocal turns
        while busy:
            mine = await layer.new_channel()
            waiting = asyncio.create_task(layer.receive(mine))
            await asyncio.sleep(random.choice([0, 0, 0.001]))
            await end(waiting)
            turns += 1

    others = [asyncio.create_task(come_and_go()) for _ in range(8)]
    for n in range(count):
        await persist(layer, name, {"n": n})
    assert await steady.until(count) == list(range(count))
    busy = False
    await asyncio.gather(*others)
    assert turns > count
    assert layer.counters == {}


# Cancelled receivers


@pytest.mark.parametrize("pause", [0.0, 0.002], ids=["burst", "trickle"])
@counts
async def test_a_cancelled_receive_loses_nothing(
    layer: RedisChannelLayer, channel: str, pause: float, count: int
) -> None:
    count = count if not pause else count // 4
    numbers: list[int] = []
    cancelled = 0

    async def send() -> None:
        for n in range(count):
            await persist(layer, channel, {"n": n})
            if pause:
                await asyncio.sleep(pause)

    sending = asyncio.create_task(send())

    async def read() -> None:
        nonlocal cancelled
        while len(numbers) < count:
            task = asyncio.create_task(layer.receive(channel))
            await asyncio.wait({task}, timeout=random.choice([0, 0, 0.0005, 0.002]))
            await end(task)
            if task.cancelled():
                cancelled += 1
            else:
                numbers.append(task.result()["n"])

    try:
        await asyncio.wait_for(read(), 60)
    finally:
        await end(sending)
    assert numbers == list(range(count))
    assert cancelled
    assert await nothing(layer, channel)


async def test_a_cancelled_receive_puts_back_in_order(
    layer: RedisChannelLayer, channel: str, valkey: Server
) -> None:
    """One receive is cancelled after each send, at another moment each time."""
    for n in range(60):
        waiting = asyncio.create_task(layer.receive(channel))
        await asyncio.sleep(0)
        sending = asyncio.create_task(layer.send(channel, {"n": n}))
        for _ in range(n % 12):
            await asyncio.sleep(0)
        waiting.cancel()
        (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
        await sending
        if isinstance(outcome, asyncio.CancelledError):
            outcome = await soon(layer, channel)
        assert outcome == {"n": n}
    assert kept(valkey.client()) == []


async def test_what_the_cancelled_one_would_have_got_goes_to_the_next(
    layer: RedisChannelLayer, channel: str
) -> None:
    first, second = [asyncio.create_task(soon(layer, channel)) for _ in range(2)]
    await asyncio.sleep(0)
    await layer.send(channel, {"n": 1})
    first.cancel()
    await asyncio.wait({first, second}, return_when="FIRST_COMPLETED")
    await layer.send(channel, {"n": 2})
    await asyncio.wait({first, second})
    # The first may have had its message before it was cancelled.
    got = [task.result() for task in (first, second) if not task.cancelled()]
    if len(got) == 1:
        got.append(await soon(layer, channel))
    assert got == [{"n": 1}, {"n": 2}]


# Idle receivers


async def test_a_wait_ends_as_soon_as_redis_can_be_told(
    valkey: Server, start_proxy: Callable[..., Proxy], caplog: pytest.LogCaptureFixture
) -> None:
    """It is told on another connection, which may be missing just then."""
    proxy = start_proxy(valkey)
    async with opened(proxy.url) as layer:
        waiting = asyncio.create_task(layer.receive("worker"))
        await eventually(lambda: valkey.client().info()["blocked_clients"], "a wait")
        proxy.refuse()
        waiting.cancel()
        await eventually(lambda: "is gone" in caplog.text, "an attempt that fails")
        proxy.accept()
        await asyncio.wait([waiting], timeout=Shard.wait / 2)
        assert waiting.cancelled()


async def test_nothing_is_popped_while_its_key_is_looked_for(
    layer: RedisChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be cut off on its way when the reader goes to another node."""
    name = await layer.new_channel()
    waiting = asyncio.create_task(soon(layer, name))
    await layer.send(name, {"n": 0})
    await waiting
    (inbox,) = layer._mailboxes.owners.inboxes()
    reader, found = inbox.reader._reader, asyncio.Event()

    async def redirect(*_: object) -> bool:
        await found.wait()
        return True

    monkeypatch.setattr(Shard, "redirect", redirect)
    with monkeypatch.context() as patch:
        patch.setattr(reader, "_demand", lambda: 0)
        await reader.stop_polling()
        reader._failed(errors.ClusterDownError("CLUSTERDOWN of a test"))
    await eventually(lambda: reader._timer is None, "the end of its pause")
    await layer.send(name, {"n": 1})
    assert not reader.is_popping
    found.set()
    assert await soon(layer, name) == {"n": 1}


@pytest.mark.slow
async def test_an_idle_receive_is_alive_after_30_seconds(
    start_server: Callable[..., Server], certificates: Certificates
) -> None:
    """Over each kind of socket, on both kinds of channel, all at the same time."""
    server = start_server(unix=True)
    with TLSFront(certificates) as front:
        hosts: list[Any] = [
            server.url,
            server.unix_url,
            {"address": front.url, "ssl_ca_certs": certificates.ca},
        ]

        async def idle(host: Any, prefix: str) -> None:
            async with opened(host, prefix=prefix) as layer:
                names = [await layer.new_channel(), "worker"]
                waiting = [asyncio.create_task(layer.receive(name)) for name in names]
                done, _ = await asyncio.wait(waiting, timeout=30)
                assert not done
                for name, task in zip(names, waiting, strict=True):
                    await layer.send(name, {"to": name})
                    assert await asyncio.wait_for(task, 1) == {"to": name}

        await asyncio.gather(*(idle(host, f"p{i}.") for i, host in enumerate(hosts)))
