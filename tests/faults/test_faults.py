"""Redis goes away and comes back: what is logged and raised, and how soon.

What becomes of the messages: see test_fault_table.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from redis import exceptions as errors

from support.crowds import BACK, GONE, Crowd, Sender, eventually_sent, lines
from support.layers import opened, soon
from support.peers import CORE
from support.polling import eventually
from support.proxy import Proxy
from support.servers import Server

# Restarted, empty


@pytest.mark.serial
async def test_killed_under_load_and_started_empty(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    async with (
        opened(server.url) as layer,
        Crowd(layer, 20) as crowd,
        Sender(layer) as sender,
    ):
        await sender.accepts(20)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(1)
        during = sender.number
        await asyncio.to_thread(server.start)
        began = loop.time()
        await eventually(lambda: all(got[-1] > during for got in crowd.got), "messages")
        assert loop.time() - began < 1
        await eventually(lambda: lines(caplog)[BACK], "the log line")
        back = sender.number
        await sender.accepts(100)
        accepted = sender.since(back)
        await eventually(lambda: crowd.all_got(accepted), "all that was accepted")
        crowd.check()
    assert set(sender.errors) == {"ConnectionError"}
    assert sender.slowest < 1
    assert lines(caplog) == {GONE: 1, BACK: 1}


@pytest.mark.slow
@pytest.mark.serial
async def test_killed_under_load_of_several_processes(
    server: Server, start_peer: Callable[..., Any]
) -> None:
    config = {"hosts": [server.url]}
    sender, *peers = [await start_peer(CORE, config) for _ in range(4)]
    collecting = []
    for peer in peers:
        names = [await peer.new_channel() for _ in range(7)]
        for name in names:
            await peer.group_add("room", name)
        collecting.append(peer.begin("collect", names, timeout=60, idle=15))
    during = sender.begin("burst", "room", 350, group=True, pause=0.01)
    await asyncio.sleep(1)
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(2)
    await asyncio.to_thread(server.start)
    for peer in *peers, sender:
        await peer.logged(BACK)
    after = await sender.burst("room", 100, group=True, start=1000, pause=0.01)
    assert len(after["accepted"]) == 100
    await during
    for answer in await asyncio.gather(*collecting):
        assert not answer["errors"]
        for received in answer["received"].values():
            numbers = [number for _, number in received]
            assert len(numbers) == len(set(numbers))
            assert numbers[-1] == 1099
            assert {*after["accepted"]} <= {*numbers}


async def test_restarted_with_its_data(server: Server) -> None:
    async with opened(server.url) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        await layer.send("worker", {"n": 1})
        await asyncio.to_thread(server.restart, empty=False)
        await eventually_sent(layer, name, {"n": 2})
        assert await soon(layer, name) == {"n": 2}
        assert await soon(layer, "worker") == {"n": 1}
        await layer.group_send("room", {"n": 3})
        assert await soon(layer, name) == {"n": 3}


# Cut off


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_cut_off_under_load(
    valkey: Server,
    start_proxy: Callable[..., Proxy],
    caplog: pytest.LogCaptureFixture,
    reset: bool,
) -> None:
    proxy = start_proxy(valkey)
    async with (
        opened(proxy.url) as layer,
        Crowd(layer, 20) as crowd,
        Sender(layer) as sender,
    ):
        for outage in range(1, 4):
            await sender.accepts(10)
            proxy.refuse()
            proxy.cut(reset=reset)
            await eventually(lambda n=outage: lines(caplog)[GONE] == n, "the line")
            await asyncio.sleep(0.2)
            proxy.accept()
            await eventually(lambda n=outage: lines(caplog)[BACK] == n, "the line")
        back = sender.number
        await sender.accepts(20)
        await eventually(lambda: crowd.all_got(sender.since(back)), "the messages")
        crowd.check()


async def test_cut_off_while_connecting(
    valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    """Wherever the connection breaks, the caller is told at once."""
    loop = asyncio.get_running_loop()
    proxy = start_proxy(valkey)
    for count in [*range(31), *[10] * 20]:  # after 10 bytes redis-py is content
        async with opened(proxy.url, capacity=1000) as layer:
            proxy.replies.cut_after(count)
            began = loop.time()
            with contextlib.suppress(errors.ConnectionError):
                await layer.send("worker", {"n": 1})
            assert loop.time() - began < 1
            await eventually_sent(layer, "worker", {"n": 2})


# Silent


async def test_silence_is_noticed(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGSTOP: the connections stay, and nothing is answered."""
    loop = asyncio.get_running_loop()
    async with opened(server.url, command_timeout=0.4) as layer:
        name = await layer.new_channel()
        waiting = asyncio.create_task(soon(layer, name, 30))
        await layer.send("worker", {"n": 0})
        server.pause()
        began = loop.time()
        sends = [layer.send("worker", {"n": n}) for n in range(500)]
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {errors.ConnectionError}
        assert loop.time() - began < 1
        await eventually(lambda: lines(caplog)[GONE], "the log line")
        # Nobody is held up for longer than one attempt to connect takes.
        began = loop.time()
        for _ in range(3):
            with pytest.raises(errors.ConnectionError):
                await layer.send("worker", {"n": -1})
        assert loop.time() - began < 3 * 0.5
        server.resume()
        await eventually_sent(layer, name, {"n": 1})
        assert await waiting == {"n": 1}


async def test_back_off_raises_at_once(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    async with opened(server.url) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        server.kill()
        await eventually(lambda: lines(caplog)[GONE], "the log line")
        calls = {
            "send": lambda: layer.send("worker", {}),
            "group_send": lambda: layer.group_send("room", {}),
            "group_add": lambda: layer.group_add("room", name),
            "group_discard": lambda: layer.group_discard("other", name),
            "flush": layer.flush,
        }
        for _ in range(100):
            for what, call in calls.items():
                began = loop.time()
                with pytest.raises(errors.ConnectionError):
                    await call()
                assert loop.time() - began < 0.1, what
        server.start()
        await eventually(lambda: lines(caplog)[BACK], "the log line")
        await layer.group_send("room", {"n": 1})
        assert await soon(layer, name) == {"n": 1}


async def test_back_off_whatever_callers_do(
    valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    """Those who call again and again don't make it connect again and again."""
    proxy = start_proxy(valkey)
    async with opened(proxy.url, command_timeout=2) as layer:
        name = await layer.new_channel()
        for channel in name, "worker":
            await layer.send(channel, {"n": 1})
            await soon(layer, channel)
        proxy.target = Nowhere()  # accepts, and closes at once
        proxy.cut()
        before = proxy.accepted
        deadline = asyncio.get_running_loop().time() + 1
        while asyncio.get_running_loop().time() < deadline:
            for channel in name, "worker":
                with pytest.raises(errors.ConnectionError):
                    await layer.send(channel, {})
                with pytest.raises(asyncio.TimeoutError):
                    await soon(layer, channel, 0.001)
        # Three links: 0, 25-50, 50-100, 100-200, 200-400 and 250-500 ms apart.
        assert proxy.accepted - before <= 3 * 7
        proxy.target = valkey
        waiting = asyncio.create_task(soon(layer, name))
        await eventually_sent(layer, name, {"n": 2})
        assert await waiting == {"n": 2}


class Nowhere:
    """A target that refuses."""

    host = "127.0.0.1"
    port = 1
