"""A link comes back by itself, and never lets its callers pile up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.client.connection import PipelinedConnection
from channels_redis_fast.client.hosts import decode_hosts
from channels_redis_fast.client.opening import open_connection
from channels_redis_fast.client.reconnecting import ReconnectingConnection, pause_after
from support.polling import eventually
from support.servers import Server


class Watched:
    """What a link told, and how often it tried."""

    def __init__(self, server: Server, **options: Any) -> None:
        self.told: list[str] = []
        self.attempts = 0
        (self._host,) = decode_hosts([server.url], 1.0)
        self.link = ReconnectingConnection(
            self._open,
            greet=self._greet,
            on_ready=lambda: self.told.append("ready"),
            on_down=lambda error: self.told.append("down"),
            **options,
        )

    async def _open(self) -> PipelinedConnection:
        self.attempts += 1
        return await open_connection(self._host, deadline=5.0)

    async def _greet(self, pipe: PipelinedConnection) -> None:
        await pipe.call((b"PING",))
        self.told.append("greeted")


@asynccontextmanager
async def watched(server: Server, **options: Any) -> AsyncIterator[Watched]:
    watch = Watched(server, **options)
    try:
        yield watch
    finally:
        await watch.link.aclose()


@pytest.mark.parametrize(
    ("failures", "seconds", "longest"),
    [
        (0, 0, 0.0),
        (1, 0, 0.05),
        (2, 0.1, 0.1),
        (3, 0.2, 0.2),
        (4, 0.5, 0.4),
        (5, 1, 0.5),
        (50, 29, 0.5),
        (60, 31, 2.0),
        (10_000, 100_000, 2.0),
    ],
)
def test_pauses(failures: int, seconds: float, longest: float) -> None:
    pauses = [pause_after(failures, seconds) for _ in range(200)]
    assert min(pauses) >= longest / 2
    assert max(pauses) <= longest
    if longest:
        assert max(pauses) - min(pauses) > longest / 4


async def test_opens_once_for_all_who_ask(valkey: Server) -> None:
    async with watched(valkey) as watch:
        assert watch.attempts == 0
        found = await asyncio.gather(*(watch.link.get() for _ in range(50)))
        assert set(found) == {watch.link.connection}
        assert watch.attempts == 1
        assert watch.told == ["greeted", "ready"]


async def test_comes_back_by_itself(server: Server) -> None:
    async with watched(server) as watch:
        first = await watch.link.get()
        server.kill()
        await eventually(lambda: "down" in watch.told, "the loss")
        server.start()
        await eventually(lambda: watch.told[-1] == "ready", "its return", timeout=5)
        assert await watch.link.get() is not first
        assert watch.told[-2:] == ["greeted", "ready"]


async def test_comes_back_at_once_from_a_cut(valkey: Server) -> None:
    async with watched(valkey) as watch:
        pipe = await watch.link.get()
        pipe.abort()
        began = asyncio.get_running_loop().time()
        await asyncio.wait_for(watch.link.get(), 5)
        assert asyncio.get_running_loop().time() - began < 0.05
        assert watch.attempts == 2


async def test_refuses_at_once_while_it_backs_off(server: Server) -> None:
    server.kill()
    async with watched(server) as watch:
        asked = [watch.link.get() for _ in range(100)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(error, errors.ConnectionError) for error in outcomes)
        assert len({id(error) for error in outcomes}) == 100
        assert watch.attempts == 1
        loop = asyncio.get_running_loop()
        began, refused = loop.time(), 0
        while loop.time() < began + 1:
            before = loop.time()
            with pytest.raises(errors.ConnectionError, match=str(server.port)):
                await watch.link.get()
            assert loop.time() - before < 0.1
            refused += 1
            await asyncio.sleep(0)
        assert refused > 1_000
        assert watch.attempts < 20
        server.start()
        await eventually(lambda: loop.time() > began + 1.6, "the longest pause")
        assert await (await watch.link.get()).call((b"PING",)) == b"PONG"


async def test_an_eager_link_tries_by_itself(server: Server) -> None:
    server.kill()
    async with watched(server, eager=True) as watch, watched(server) as other:
        for each in watch, other:
            each.link.begin()
        await eventually(lambda: watch.attempts >= 3, "more attempts")
        assert other.attempts == 1
        server.start()
        await eventually(lambda: watch.link.connection, "a connection", timeout=5)
        assert other.link.connection is None


@pytest.mark.parametrize("moment", ["attempt", "pause", "connected"])
async def test_closed_for_good(server: Server, moment: str) -> None:
    if moment == "pause":
        server.kill()
    async with watched(server, eager=True) as watch:
        watch.link.begin()
        if moment == "pause":
            await eventually(lambda: "down" in watch.told, "the failure")
        elif moment == "connected":
            await watch.link.get()
        else:
            await asyncio.sleep(0)
        await watch.link.aclose()
        attempts = watch.attempts
        with pytest.raises(errors.ConnectionError):
            await watch.link.get()
        await asyncio.sleep(0.1)
        assert watch.attempts == attempts
        assert watch.link.connection is None


async def test_retired_when_all_is_answered(server: Server) -> None:
    async with watched(server) as watch:
        pipe = await watch.link.get()
        server.client().client_pause(200)
        calls = [pipe.call((b"INCR", b"counter")) for _ in range(3)]
        await watch.link.retire()
        assert [call.result() for call in calls] == [1, 2, 3]
        with pytest.raises(errors.ConnectionError):
            await watch.link.get()
    assert watch.told == ["greeted", "ready"]


@pytest.mark.parametrize("is_there", [True, False], ids=["there", "gone"])
async def test_retired_while_connecting(server: Server, is_there: bool) -> None:
    """Who waits for the connection gets what became of it, and uses it."""
    async with watched(server) as watch:
        if not is_there:
            server.kill()

        async def call(n: int) -> Any:
            return await (await watch.link.get()).call((b"ECHO", n))

        calls = [asyncio.create_task(call(n)) for n in range(3)]
        await asyncio.sleep(0)
        await asyncio.wait_for(watch.link.retire(), 5)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        if is_there:
            assert outcomes == [b"0", b"1", b"2"]
        else:
            for outcome in outcomes:
                assert isinstance(outcome, errors.ConnectionError)
                assert str(server.port) in str(outcome)  # it was not reached


@pytest.mark.parametrize("when", ["before", "lost"])
async def test_retired_without_an_answer(server: Server, when: str) -> None:
    async with watched(server) as watch:
        call: Any = None
        if when == "lost":
            pipe = await watch.link.get()
            server.client().client_pause(10_000)
            call = pipe.call((b"INCR", b"counter"))
        retiring = asyncio.ensure_future(watch.link.retire())
        if when == "lost":
            await asyncio.sleep(0)
            server.kill()
        await asyncio.wait_for(retiring, 5)
        if call is not None:
            with pytest.raises(errors.ConnectionError):
                await call
    assert "down" not in watch.told


async def test_an_attempt_that_is_cancelled_before_it_begins(server: Server) -> None:
    async with watched(server) as watch:
        watch.link.begin()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(errors.ConnectionError, match="cancelled"):
            await watch.link.get()
        assert await (await watch.link.get()).call((b"PING",)) == b"PONG"
