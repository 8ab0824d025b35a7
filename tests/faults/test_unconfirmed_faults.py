"""Unconfirmed sends when Redis is silent, goes away, or moves its keys."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.runtime.unconfirmed import _MOST, FAILED
from support.clusters import Cluster, slot_of
from support.crowds import BACK, GONE, eventually_sent, lines
from support.layers import end, opened, soon, unconfirmed
from support.polling import eventually
from support.proxy import Proxy
from support.servers import Server, free_port
from support.syncing import KINDS


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def turns(count: int = 200) -> None:
    """Lets everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


class Eager:
    """Sends without end until one raises."""

    def __init__(self, layer: Any, message: dict[str, Any], senders: int = 1) -> None:
        self.sent = 0
        self._layer = layer
        self._message = message
        self.tasks = [asyncio.create_task(self._send()) for _ in range(senders)]

    async def _send(self) -> None:
        while True:
            await self._layer.send("worker", self._message)
            self.sent += 1

    async def stuck(self) -> int:
        """How many returned, when no more do."""
        before = -1
        while self.sent != before:
            before = self.sent
            await turns()
        return self.sent

    async def errors(self) -> set[type[Any]]:
        """What they ended with."""
        found = await asyncio.gather(*self.tasks, return_exceptions=True)
        return {type(error) for error in found}


# Redis goes away


async def test_no_connection_raises_at_once(kind: str) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    async with unconfirmed(kind, url) as layer:
        for _ in range(5):
            with pytest.raises(errors.ConnectionError):
                await layer.send("worker", {"n": 1})
            with pytest.raises(errors.ConnectionError):
                await layer.group_send("room", {"n": 1})
            for many in layer.send_many, layer.group_send_many:
                (outcome,) = await many([("room", {"n": 1})])
                assert isinstance(outcome, errors.ConnectionError)
        await layer.flush_sends()
        assert layer.counters == {}


async def test_killed_with_sends_outstanding(
    kind: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with unconfirmed(kind, server.url) as layer:
        await layer.send("worker", {"n": 0})
        await layer.flush_sends()
        server.pause()
        for n in range(100):
            await layer.send("worker", {"n": n})
        assert layer.counters == {}
        await asyncio.to_thread(server.kill)
        await layer.flush_sends()
        assert layer.counters == {FAILED: 100}
        assert [FAILED in line for line in caplog.messages].count(True) == 1
        with pytest.raises(errors.ConnectionError):
            await layer.send("worker", {"n": 0})
        await asyncio.to_thread(server.start)
        await eventually_sent(layer, "worker", {"n": 200})
        assert await soon(layer, "worker") == {"n": 200}
        assert layer.counters == {FAILED: 100}


async def test_group_sends_outstanding_are_counted(
    server: Server, start_proxy: Callable[..., Proxy]
) -> None:
    """Whichever half the connection breaks in."""
    proxy = start_proxy(server)
    async with (
        unconfirmed("core", proxy.url) as layer,
        opened(server.url, capacity=1000) as other,
    ):
        name = await other.new_channel()
        await other.group_add("room", name)
        await layer.group_send("room", {"n": 0})
        await layer.flush_sends()
        proxy.replies.hold()
        for n in range(1, 51):
            await layer.group_send("room", {"n": n})
        proxy.refuse()
        proxy.cut()
        await layer.flush_sends()
        assert layer.counters == {FAILED: 50}
        proxy.replies.release()
        proxy.accept()
        await eventually_sent(layer, "worker", {})
        await layer.group_send("room", {"n": 51})
        assert [(await soon(other, name))["n"] for _ in range(2)] == [0, 51]


async def test_the_reading_half_is_repeated(
    valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    proxy = start_proxy(valkey)
    async with unconfirmed("core", proxy.url) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        await layer.group_send("room", {"n": 0})
        await layer.flush_sends()
        proxy.replies.hold()
        for n in range(1, 51):
            await layer.group_send("room", {"n": n})
        proxy.cut()
        proxy.replies.release()
        await layer.flush_sends()
        assert [(await soon(layer, name))["n"] for _ in range(51)] == list(range(51))
        assert layer.counters == {}


# Redis is silent


async def test_silence_bounds_what_is_outstanding(
    kind: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Sends wait rather than pile up; when Redis counts as gone, they raise."""
    async with unconfirmed(
        kind, server.url, capacity=5 * _MOST, command_timeout=3
    ) as layer:
        await layer.send("worker", {"n": 0})
        await layer.flush_sends()
        server.pause()
        eager = Eager(layer, {"n": 1}, senders=5)
        assert await eager.stuck() == _MOST
        assert await eager.errors() == {errors.ConnectionError}
        assert layer.counters == {FAILED: _MOST}
        await eventually(lambda: lines(caplog)[GONE], "the log line")
        await layer.flush_sends()
        server.resume()
        await eventually_sent(layer, "worker", {"n": 2})
        await eventually(lambda: lines(caplog)[BACK], "the log line")


async def test_who_waits_for_room(kind: str, server: Server) -> None:
    """`command_timeout` is for each of them, not for each thousand."""
    async with unconfirmed(kind, server.url, command_timeout=0.5) as layer:
        await layer.send("worker", {"n": 0})
        await layer.flush_sends()
        (shard,) = layer._loops.engine().shards
        server.pause()
        await asyncio.gather(*(layer.send("worker", {}) for _ in range(_MOST)))
        shard._main.connection.heard = math.inf  # so that it isn't given up
        with pytest.raises(errors.ConnectionError, match="no room"):
            await asyncio.wait_for(layer.send("worker", {}), 10)
        server.resume()


async def test_silence_bounds_the_bytes(kind: str, server: Server) -> None:
    async with unconfirmed(kind, server.url, command_timeout=3) as layer:
        await layer.send("worker", {"n": 0})
        await layer.flush_sends()
        server.pause()
        eager = Eager(layer, {"data": b"x" * 200_000})
        assert await eager.stuck() < _MOST // 4
        await end(*eager.tasks)
        server.resume()
        await layer.flush_sends()


async def test_a_short_silence_costs_nothing(
    kind: str, valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    proxy = start_proxy(valkey)
    async with unconfirmed(kind, proxy.url, capacity=5 * _MOST) as layer:
        await layer.send("worker", {"n": 0})
        await layer.flush_sends()
        proxy.replies.hold()
        eager = Eager(layer, {"n": 1}, senders=3)
        assert await eager.stuck() == _MOST
        await end(eager.tasks[0])  # one that waits may be cancelled
        proxy.replies.release()
        await eventually(lambda: eager.sent > 2 * _MOST, "the others to go on")
        await end(*eager.tasks)
        await layer.flush_sends()
        assert layer.counters == {}
        # A cancelled send may have been sent.
        assert 0 <= valkey.client().zcard("asgiworker") - 1 - eager.sent <= 2


async def test_flush_sends_waits_and_may_be_cancelled(
    kind: str, valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    proxy = start_proxy(valkey)
    async with unconfirmed(kind, proxy.url) as layer:
        await layer.send("worker", {"n": 0})
        await layer.flush_sends()
        proxy.replies.hold()
        await layer.send("worker", {"n": 1})
        flushing = [asyncio.create_task(layer.flush_sends()) for _ in range(3)]
        await turns()
        assert not any(task.done() for task in flushing)
        await end(flushing[0])
        later = asyncio.create_task(layer.flush_sends())
        await turns()
        assert not any(task.done() for task in [*flushing[1:], later])
        proxy.replies.release()
        await asyncio.wait_for(asyncio.gather(*flushing[1:], later), 10)
        assert layer.counters == {}


async def test_closing_while_redis_is_silent(kind: str, server: Server) -> None:
    """It takes as long as a command may, and what is lost is counted."""
    async with unconfirmed(kind, server.url, command_timeout=0.5) as layer:
        await layer.send("worker", {"n": 0})
        await layer.flush_sends()
        server.pause()
        for n in range(10):
            await layer.send("worker", {"n": n})
        await asyncio.wait_for(layer.close_pools(), 10)
        assert layer.counters == {FAILED: 10}
        server.resume()


async def test_a_loop_that_ends_while_sends_are_tried_again(server: Server) -> None:
    """They are tried for as long as a command may take; then it ends."""

    async def work() -> None:
        layer = KINDS["core"](
            hosts=[server.url], confirm_sends=False, command_timeout=1
        )
        await layer.send("worker", {"n": 0})
        await layer.flush_sends()
        made.append(layer)
        client = server.client()
        client.replicaof("127.0.0.1", free_port())  # READONLY from now on
        for n in range(10):
            await layer.send("worker", {"n": n})
        (shard,) = layer._loops.engine().shards
        await eventually(lambda: shard._backlog.keys, "errors")

    made: list[Any] = []
    await asyncio.wait_for(asyncio.to_thread(asyncio.run, work()), 20)
    assert made[0].counters == {FAILED: 10}


# Keys that move


async def test_a_slot_that_moves(own_primaries: Cluster) -> None:
    """In order, and nothing is lost or doubled."""
    async with unconfirmed("core", own_primaries.host, capacity=3_000) as layer:
        key = "asgiworker"
        source = own_primaries.node_of(key)
        target = next(one for one in own_primaries.primaries if one is not source)
        sent = 0

        async def send(count: int) -> None:
            nonlocal sent
            for _ in range(count):
                await layer.send("worker", {"n": sent})
                sent += 1

        await send(300)
        moving = asyncio.create_task(
            asyncio.to_thread(own_primaries.migrate_slot, slot_of(key), target)
        )
        while not moving.done() and sent < 2_500:
            await send(10)
        await moving
        await send(300)
        await layer.flush_sends()
        assert layer.counters == {}
        got = [(await soon(layer, "worker"))["n"] for _ in range(sent)]
        assert got == list(range(sent))
