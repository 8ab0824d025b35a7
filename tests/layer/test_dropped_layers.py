"""Layers that nobody holds: what they had is closed, and they are collected."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.pubsub import RedisPubSubChannelLayer
from support.layers import nothing, soon
from support.polling import eventually, until
from support.servers import Server

HELLO = {"type": "hello"}
LAYERS = 20

both = pytest.mark.parametrize(
    "make", [RedisChannelLayer, RedisPubSubChannelLayer], ids=["core", "pubsub"]
)


async def used(layer: Any) -> None:
    """What a consumer does: its channel in a group, a message to either."""
    name = await layer.new_channel()
    await layer.group_add("room", name)
    await layer.group_send("room", HELLO)
    assert await soon(layer, name) == HELLO
    await layer.send("worker", HELLO)
    assert await soon(layer, "worker") == HELLO


@both
async def test_in_a_loop_that_goes_on(make: Callable[..., Any], valkey: Server) -> None:
    kept, dropped = make(hosts=[valkey.url]), []
    await used(kept)
    clients = len(valkey.clients())
    for _ in range(LAYERS):
        layer = make(hosts=[valkey.url])
        await used(layer)
        dropped.append(weakref.ref(layer))
    del layer
    gc.collect()
    assert not [ref for ref in dropped if ref()]
    await eventually(lambda: len(valkey.clients()) <= clients, "their connections")
    await used(kept)
    await kept.close_pools()


@both
async def test_who_waits_keeps_the_layer(
    make: Callable[..., Any], valkey: Server
) -> None:
    layer = make(hosts=[valkey.url])
    name = await layer.new_channel()
    waiting = asyncio.create_task(layer.receive(name))
    await asyncio.sleep(0)
    ref = weakref.ref(layer)
    del layer
    gc.collect()
    layer = ref()
    assert layer is not None
    await layer.send(name, HELLO)
    assert await asyncio.wait_for(waiting, 10) == HELLO
    await layer.close_pools()


@both
def test_whose_loop_stands_still(make: Callable[..., Any], valkey: Server) -> None:
    loop = asyncio.new_event_loop()
    layer = make(hosts=[valkey.url])
    loop.run_until_complete(used(layer))
    ref = weakref.ref(layer)
    del layer
    gc.collect()
    assert ref() is None
    loop.close()
    until(lambda: not valkey.clients(), "the end of its connections")


async def claim_and_drop(server: Server, turns: int) -> None:
    """Drops a layer that claimed messages, so many turns before its loop ends."""
    layer = RedisChannelLayer(hosts=[server.url], prefetch=100)
    for n in range(10):
        await layer.send("worker", {"n": n})
    assert await soon(layer, "worker") == {"n": 0}
    del layer
    gc.collect()
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_as_its_loop_ends(valkey: Server) -> None:
    layer = RedisChannelLayer(hosts=[valkey.url])
    for turns in range(8):
        await asyncio.to_thread(asyncio.run, claim_and_drop(valkey, turns))
        got = [(await soon(layer, "worker"))["n"] for _ in range(9)]
        assert got == list(range(1, 10)), f"{turns} turns before"
        assert await nothing(layer, "worker")
    await layer.close_pools()


async def test_unconfirmed_sends_arrive(valkey: Server) -> None:
    layer = RedisChannelLayer(hosts=[valkey.url])
    dropped = RedisChannelLayer(hosts=[valkey.url], confirm_sends=False)
    for n in range(50):
        await dropped.send("worker", {"n": n})
    del dropped
    gc.collect()
    got = [(await soon(layer, "worker"))["n"] for _ in range(50)]
    assert got == list(range(50))
    assert await nothing(layer, "worker")
    await layer.close_pools()


async def test_with_overridden_hooks_goes_on_until_closed(valkey: Server) -> None:
    class Own(RedisChannelLayer):
        def consistent_hash(self, value: str | bytes) -> int:
            return super().consistent_hash(value)

    layer = Own(hosts=[valkey.url] * 2)
    await used(layer)
    await layer.close_pools()


@pytest.mark.slow
def test_a_thousand_in_one_loop(valkey: Server) -> None:
    """The end of the loop doesn't get deeper with each layer that lived in it."""
    loop = asyncio.new_event_loop()
    for _ in range(1100):
        layer = RedisChannelLayer(hosts=[valkey.url])
        loop.run_until_complete(layer.new_channel())
    del layer
    loop.close()


def test_nothing_is_said_at_exit(valkey: Server) -> None:
    program = f"""if True:
        import asyncio
        from channels_redis_fast.core import RedisChannelLayer
        from channels_redis_fast.pubsub import RedisPubSubChannelLayer

        async def receive(layer):
            # A machine that is busy is not what is to be heard of.
            asyncio.get_running_loop().slow_callback_duration = 60
            name = await layer.new_channel()
            await layer.send(name, {HELLO!r})
            await layer.receive(name)

        layers = [
            make(hosts=[{valkey.url!r}])
            for make in (RedisChannelLayer, RedisPubSubChannelLayer)
        ]
        for layer in layers:
            layer.sync.group_send("room", {HELLO!r})
            asyncio.run(receive(layer))
    """
    command = [sys.executable, "-X", "dev", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# What is said of layers whose prefixes overlap


def overlaps(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [one.args for one in caplog.records if "prefixes" in one.getMessage()]


async def test_overlapping_prefixes_are_told_once(
    valkey: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    layers = [
        RedisChannelLayer(hosts=[valkey.url], prefix=prefix)
        for prefix in ("once", "once-more", "once", "once-more")
    ]
    assert overlaps(caplog) == [("once", "once-more")]
    assert layers


async def test_closed_layers_overlap_with_none(
    valkey: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    closed = RedisChannelLayer(hosts=[valkey.url], prefix="closed")
    await closed.close_pools()
    layer = RedisChannelLayer(hosts=[valkey.url], prefix="closed-not")
    assert overlaps(caplog) == []
    assert layer


@pytest.mark.parametrize("count", [20, pytest.param(50, marks=pytest.mark.slow)])
def test_made_in_many_threads_at_once(valkey: Server, count: int) -> None:
    def make(number: int) -> list[RedisChannelLayer]:
        return [
            RedisChannelLayer(hosts=[valkey.url], prefix=f"{number}-{n}")
            for n in range(count)
        ]

    with ThreadPoolExecutor(8) as threads:
        assert sum(map(len, threads.map(make, range(8)))) == 8 * count
