"""`layer.sync` and `async_to_sync`: without a loop, without a new connection."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.exceptions import ChannelFull

from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.exceptions import ForeignChannel
from support.certificates import Certificates
from support.clusters import Cluster
from support.layers import soon
from support.loops import POLICIES
from support.polling import until
from support.pubsubs import published
from support.sentinels import SentinelSet
from support.servers import Server
from support.syncing import (
    KINDS,
    accepted,
    blocking,
    in_threads,
    no_more_than,
    resources,
)

WAYS: dict[str, Callable[[Any, str], Callable[..., Any]]] = {
    "sync": lambda layer, method: getattr(layer.sync, method),
    "async_to_sync": lambda layer, method: async_to_sync(getattr(layer, method)),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Any, str], Callable[..., Any]]:
    return WAYS[request.param]


@pytest.fixture
def core(valkey: Server) -> Iterator[RedisChannelLayer]:
    with blocking("core", valkey.url, capacity=1000) as layer:
        yield layer


@pytest.fixture(scope="session")
def topology(request: pytest.FixtureRequest) -> list[Any]:
    """The hosts of a kind of installation."""
    name = request.param
    if name == "shards":
        return [request.getfixturevalue(n).url for n in ("valkey", "redis62")]
    if name == "unix":
        return [request.getfixturevalue("guarded").unix_url]
    if name == "tls":
        certificates: Certificates = request.getfixturevalue("certificates")
        url = request.getfixturevalue("tls_front").url
        arguments = certificates.client_arguments()
        arguments.pop("ssl", None)
        return [{"address": url, **arguments}]
    if name == "sentinel":
        sentinels: SentinelSet = request.getfixturevalue("sentinels")
        return [sentinels.host]
    if name == "cluster":
        cluster: Cluster = request.getfixturevalue("cluster")
        return [cluster.host]
    return [request.getfixturevalue(name).url]


EVERY = ["valkey", "redis62", "redis70", "guarded", "unix", "tls", "shards"]
EVERY += ["sentinel", "cluster"]
everywhere = pytest.mark.parametrize("topology", EVERY, indirect=True)


# What the methods do


@everywhere
@pytest.mark.usefixtures("any_shared")
def test_all_methods_of_core(topology: list[Any]) -> None:
    with blocking("core", *topology) as layer:
        sync = layer.sync
        sync.flush()
        names = [sync.new_channel() for _ in range(8)]
        for number, name in enumerate(names):
            sync.group_add(f"room{number % 2}", name)
            sync.send(name, {"n": number})
            sync.send(f"worker{number}", {"n": number})
        sync.group_discard("room1", names[1])
        sync.group_send("room1", {"odd": True})
        for number, name in enumerate(names):
            assert sync.receive(name, 5) == {"n": number}
            assert sync.receive(f"worker{number}", 5) == {"n": number}
            if number % 2 and number > 1:
                assert sync.receive(name, 5) == {"odd": True}
            else:
                with pytest.raises(TimeoutError):
                    sync.receive(name, 0)
        sync.send("worker", {"n": 1})
        sync.flush()
        with pytest.raises(TimeoutError):
            sync.receive("worker", 0.1)


@everywhere
@pytest.mark.usefixtures("any_shared")
async def test_blocking_publishes(topology: list[Any]) -> None:
    """Called in threads; the loop listens, and subscribes for them."""
    async with published(*topology) as layer:
        await layer.flush()
        await layer.new_channel()

        def work() -> None:
            name = layer.sync.new_channel()
            layer.sync.group_add("room", name)
            layer.sync.send(name, {"n": 1})
            assert layer.sync.receive(name, 5) == {"n": 1}
            layer.sync.group_send("room", {"n": 2})
            assert layer.sync.receive(name, 5) == {"n": 2}
            layer.sync.group_discard("room", name)
            layer.sync.group_send("room", {"n": 3})
            layer.sync.send("worker", {"n": 4})
            assert layer.sync.receive("worker", 5) == {"n": 4}
            with pytest.raises(TimeoutError):
                layer.sync.receive(name, 0)
            layer.sync.close()

        await asyncio.to_thread(work)


def test_no_loop_that_listens(valkey: Server) -> None:
    with blocking("pubsub", valkey.url) as layer:
        name = f"asgi.{'0' * 32}"
        for call in (
            lambda: layer.sync.new_channel(),
            lambda: layer.sync.receive(name),
            lambda: layer.sync.group_add("room", name),
        ):
            with pytest.raises(RuntimeError, match="needs a subscription"):
                call()


def test_errors_are_the_layers_own(kind: str, valkey: Server) -> None:
    with blocking(kind, valkey.url, capacity=1) as layer:
        layer.sync.send("worker", {})
        with pytest.raises(ChannelFull):
            layer.sync.send("worker", {})
        for call in (
            lambda: layer.sync.send("bad name", {}),
            lambda: layer.sync.receive("bad name", 0),
            lambda: layer.sync.group_add("room", 7),
            lambda: layer.sync.group_send("bad name", {}),
            lambda: layer.sync.send("worker", "no dict"),
        ):
            with pytest.raises(TypeError):
                call()
        elsewhere = f"specific.{'0' * 32}!{'0' * 32}"
        if kind == "core":
            with pytest.raises(ForeignChannel):
                layer.sync.receive(elsewhere, 0)


def test_an_overridden_method_counts(valkey: Server) -> None:
    class Own(RedisChannelLayer):
        async def send(self, channel: str, message: dict[str, Any]) -> None:
            await super().send(channel, {**message, "own": True})

        async def group_send(self, group: str, message: dict[str, Any]) -> None:
            await asyncio.sleep(0.001)

    layer = Own(hosts=[valkey.url])
    layer.sync.send("worker", {})
    assert layer.sync.receive("worker", 5) == {"own": True}
    with pytest.raises(RuntimeError, match="event loop"):
        layer.sync.group_send("room", {})
    layer.sync.close()


async def test_not_in_a_loop_of_others(kind: str, valkey: Server) -> None:
    with blocking(kind, valkey.url) as layer:
        with pytest.raises(RuntimeError, match=r"await layer\.send\(\.\.\.\) instead"):
            layer.sync.send("worker", {})
        with pytest.raises(RuntimeError, match=r"await layer\.receive"):
            layer.sync.receive("worker")
        await layer.close_pools()


# Receiving


def test_threads_share_one_key(core: RedisChannelLayer) -> None:
    """Whoever pops does it for all, and hands it on when he has his own."""
    names = [core.sync.new_channel() for _ in range(8)]
    ready = threading.Barrier(len(names) + 1)

    def echo(number: int) -> list[int]:
        ready.wait()
        return [core.sync.receive(names[number], 10)["n"] for _ in range(20)]

    def send() -> None:
        ready.wait()
        for n in range(20):
            for name in reversed(names):
                core.sync.send(name, {"n": n})

    sender = threading.Thread(target=send)
    sender.start()
    got = in_threads(len(names), echo, len(names))
    sender.join()
    assert got == [list(range(20))] * len(names)


async def test_a_loop_and_a_thread_share_one_key(core: RedisChannelLayer) -> None:
    """Each feeds the other, whoever came first."""
    ours, theirs = await core.new_channel(), await core.new_channel()
    receive = core.sync.receive
    for first in (ours, theirs):
        if first == theirs:
            thread = asyncio.create_task(asyncio.to_thread(receive, theirs, 10))
            waiting = asyncio.create_task(soon(core, ours))
        else:
            waiting = asyncio.create_task(soon(core, ours))
            await asyncio.sleep(0)
            thread = asyncio.create_task(asyncio.to_thread(receive, theirs, 10))
        await core.send(first, {"first": True})
        await core.send(ours if first == theirs else theirs, {"first": False})
        assert (await waiting)["first"] is (first == ours)
        assert (await thread)["first"] is (first == theirs)
        await core.close_pools()


def test_a_message_for_one_of_two_shards(valkey: Server, redis62: Server) -> None:
    """What both had is not lost: the other one is back at its place."""
    with blocking("core", valkey.url, redis62.url) as layer:
        for n in range(50):
            layer.sync.send("worker", {"n": n})
        got = [layer.sync.receive("worker", 5)["n"] for _ in range(50)]
        assert sorted(got) == list(range(50))
        for shard in (0, 1):  # they take turns
            ours = [n for n in got if n % 2 == shard]
            assert ours == sorted(ours)
        with pytest.raises(TimeoutError):
            layer.sync.receive("worker", 0.1)


def test_two_receivers_share_a_channel(core: RedisChannelLayer) -> None:
    for n in range(100):
        core.sync.send("worker", {"n": n})
    got = in_threads(4, lambda _: core.sync.receive("worker", 5)["n"], 100)
    assert sorted(got) == list(range(100))


# Connections


needs_timers = pytest.mark.skipif(
    os.environ.get("TEST_LOOP") == "uvloop", reason="uvloop doesn't tell its timers"
)


@needs_timers
@pytest.mark.parametrize(
    "kind", ["core", pytest.param("pubsub", marks=pytest.mark.slow)], indirect=True
)
def test_a_connection_per_thread_at_most(
    kind: str, way: Callable[..., Any], valkey: Server
) -> None:
    with blocking(kind, valkey.url, command_timeout=30) as layer:
        send, before, mine = way(layer, "group_send"), accepted(valkey), resources()
        # Every thread is in the middle of a call for once.
        valkey.client().client_pause(30_000, all=False)  # of what writes
        with ThreadPoolExecutor(32) as pool:
            # Groups that were not read lately: else reading one is no writing.
            calls = pool.map(lambda n: send(f"room{n}", {"n": n}), range(100))
            until(lambda: accepted(valkey) - before == 32, "all to be connected")
            valkey.client().client_unpause()
            list(calls)
        used = resources()
        in_threads(32, lambda n: send("room", {"n": n}), 300)
        assert accepted(valkey) - before == 32
        assert used[0] == mine[0] == resources()[0]
        assert resources()[1] - mine[1] <= 32


@needs_timers
def test_the_drop_in_leaves_nothing(
    kind: str, way: Callable[..., Any], valkey: Server
) -> None:
    with blocking(kind, valkey.url) as layer:
        way(layer, "send")("worker", {})
        before, mine = accepted(valkey), resources()
        for n in range(30):
            way(layer, "send")("worker", {"n": n})
            way(layer, "group_send")("room", {"n": n})
            way(layer, "group_discard")("room", "worker")
            if kind == "core":
                way(layer, "group_add")("room", "worker")
        assert accepted(valkey) == before
        until(lambda: no_more_than(mine), "threads and descriptors to go")
        assert not layer._loops.all()


@needs_timers
def test_more_than_the_call_in_the_loop(kind: str, valkey: Server) -> None:
    """A coroutine that does several things at once keeps its event loop."""
    with blocking(kind, valkey.url) as layer:

        async def several() -> int:
            await layer.send("worker", {})  # alone
            alone = len(layer._loops.all())
            await asyncio.gather(*(layer.send("worker", {}) for _ in range(3)))
            assert len(layer._loops.all()) == 1
            await layer.send("worker", {})
            return alone

        assert async_to_sync(several)() == 0
        assert not layer._loops.all()
        got = [layer.sync.receive("worker", 5) for _ in range(5)]
        assert got == [{}] * 5


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Sets which event loops are made, in turn."""
    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(request.param())
    yield
    asyncio.set_event_loop_policy(before)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="has no asyncio.timeout")
@pytest.mark.usefixtures("policy")
def test_a_timeout_is_not_held_up(kind: str, server: Server) -> None:
    """A timer in the loop is somebody who waits."""
    with blocking(kind, server.url) as layer:
        layer.sync.send("worker", {})

        async def hurry() -> None:
            async with asyncio.timeout(0.1):
                await layer.send("worker", {})

        server.pause()
        with pytest.raises(asyncio.TimeoutError):
            async_to_sync(hurry)()
        server.resume()


async def test_a_view_in_a_server_uses_its_loop(kind: str, valkey: Server) -> None:
    """There `async_to_sync` finds the server's loop, which has connections."""
    with blocking(kind, valkey.url) as layer:
        view = sync_to_async(async_to_sync(layer.send))
        await view("worker", {"n": 1})
        assert len(layer._loops.all()) == 1
        assert await soon(layer, "worker") == {"n": 1}
        await layer.close_pools()
