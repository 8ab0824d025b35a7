"""`command_timeout` bounds every call, from its beginning to its error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from redis import exceptions as errors

from support.clusters import Cluster
from support.loops import LoopThread
from support.proxy import Proxy
from support.servers import Server
from support.syncing import KINDS

TIMEOUT = 1.0  # seconds
# Twice as long would be a second attempt, or a step with a deadline of its own.
LIMIT = 1.8 * TIMEOUT

pytestmark = pytest.mark.serial

MESSAGE = {"type": "x"}


def calls_of(kind: str, channel: str) -> dict[str, tuple[Any, ...]]:
    """The methods that ask Redis, with what they are called with."""
    calls: dict[str, tuple[Any, ...]] = {
        "send": ("jobs", MESSAGE),
        "group_send": ("room", MESSAGE),
        "send_many": ([("jobs", MESSAGE), ("more", MESSAGE)],),
        "group_send_many": ([("room", MESSAGE), ("hall", MESSAGE)],),
        "group_add": ("hall", channel),
        "flush": (),
    }
    if kind == "core":
        calls["group_discard"] = ("room", channel)
    else:
        calls["new_channel"] = ()
    return calls


@contextmanager
def silence(servers: list[Server]) -> Iterator[None]:
    """All of them stand still: they take connections, and say nothing."""
    for server in servers:
        server.pause()
    try:
        yield
    finally:
        for server in servers:
            server.resume()


@contextmanager
def slowness(proxy: Proxy) -> Iterator[None]:
    """Answers come byte by byte, each within the time that a server may be silent."""
    proxy.replies.split, proxy.replies.delay = 1, 0.8 * TIMEOUT
    try:
        yield
    finally:
        proxy.replies.split, proxy.replies.delay = None, 0.0


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> list[Server]:
    if request.param == "cluster":
        cluster: Cluster = request.getfixturevalue("own_cluster")
        return cluster.nodes
    return [request.getfixturevalue("server")]


def host_of(servers: list[Server]) -> Any:
    if len(servers) > 1:
        return {"cluster": [server.address for server in servers]}
    return servers[0].url


both = pytest.mark.parametrize(
    "servers",
    ["server", pytest.param("cluster", marks=pytest.mark.slow)],
    indirect=True,
)


@both
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "new"])
async def test_awaited(kind: str, servers: list[Server], connected: bool) -> None:
    await check_awaited(kind, host_of(servers), lambda: silence(servers), connected)


@pytest.mark.parametrize("kind", KINDS)
async def test_awaited_over_a_slow_line(
    kind: str, valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    """What comes keeps no caller waiting, if it isn't his whole answer."""
    proxy = start_proxy(valkey)
    await check_awaited(kind, proxy.url, lambda: slowness(proxy), connected=True)


async def check_awaited(
    kind: str,
    host: Any,
    trouble: Callable[[], AbstractContextManager[None]],
    connected: bool,
) -> None:
    """Whether all methods that are called in trouble end in time, by an error."""
    took: dict[str, float] = {}

    async def timed(layer: Any, method: str, arguments: tuple[Any, ...]) -> None:
        began = time.monotonic()
        try:
            answer = await getattr(layer, method)(*arguments)
        except errors.ConnectionError as error:
            answer = [error]
        took[method] = time.monotonic() - began
        assert method == "group_discard" or all(answer), (method, answer)

    methods = list(calls_of(kind, ""))
    layers = {
        method: KINDS[kind](hosts=[host], command_timeout=TIMEOUT) for method in methods
    }
    names = {}
    for method, layer in layers.items():
        if connected or kind == "pubsub":  # which joins with a channel that it has
            names[method] = await layer.new_channel()
            await layer.group_add("room", names[method])
            await layer.send("other", MESSAGE)
    with trouble():
        work = [
            timed(layer, method, calls_of(kind, names.get(method, "x.y!z"))[method])
            for method, layer in layers.items()
        ]
        await asyncio.gather(*work)
    assert {method: t for method, t in took.items() if t > LIMIT} == {}
    for layer in layers.values():
        await layer.close_pools()


@both
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "new"])
def test_blocking(kind: str, servers: list[Server], connected: bool) -> None:
    """Each method in a thread of its own."""
    made: dict[str, Any] = {}
    calls = calls_of(kind, "x.y!z")
    if kind == "pubsub":  # an event loop does these
        calls = {
            m: a for m, a in calls.items() if m not in ("group_add", "new_channel")
        }
    for method in calls:
        layer = KINDS[kind](hosts=[host_of(servers)], command_timeout=TIMEOUT)
        made[method] = layer
        if connected:
            layer.sync.send("other", MESSAGE)

    def timed(method: str) -> float:
        began = time.monotonic()
        try:
            answer = getattr(made[method].sync, method)(*calls[method])
        except (errors.ConnectionError, errors.TimeoutError) as error:
            answer = [error]
        took = time.monotonic() - began
        assert all(answer), (method, answer)
        return took

    with silence(servers), ThreadPoolExecutor(len(calls)) as pool:
        took = dict(zip(calls, pool.map(timed, calls), strict=True))
    assert {method: t for method, t in took.items() if t > LIMIT} == {}
    for layer in made.values():
        layer.sync.close()


@pytest.mark.parametrize("way", ["loop", "thread"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_first_that_is_encrypted(
    kind: str, way: str, valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    """It asks for Redis's clock first, in the same time."""
    proxy = start_proxy(valkey)
    options = {"command_timeout": TIMEOUT, "symmetric_encryption_keys": ["a key"]}

    async def first(method: str, argument: Any) -> Any:
        layer = KINDS[kind](hosts=[proxy.url], **options)
        if way == "loop":
            await layer.group_send("room", MESSAGE)
            connected.release()
            await slow.wait()
            call = getattr(layer, method)(*argument)
        else:
            await asyncio.to_thread(layer.sync.group_send, "room", MESSAGE)
            connected.release()
            await slow.wait()
            call = asyncio.to_thread(getattr(layer.sync, method), *argument)
        (found,) = await asyncio.gather(call, return_exceptions=True)
        await layer.close_pools()
        layer.sync.close()
        return found

    connected, slow = asyncio.Semaphore(0), asyncio.Event()
    calls = {"send": ("jobs", MESSAGE), "send_many": ([("more", MESSAGE)],)}
    work = [asyncio.create_task(first(*one)) for one in calls.items()]
    for _ in work:
        await connected.acquire()
    proxy.replies.delay = 0.7 * TIMEOUT  # two answers take too long
    slow.set()
    error, (outcome,) = await asyncio.gather(*work)
    for found in error, outcome:
        assert isinstance(found, (errors.ConnectionError, errors.TimeoutError)), found


@pytest.mark.parametrize("method", ["new_channel", "group_add"])
def test_of_an_event_loop_that_stands_still(
    method: str, server: Server, threads: list[LoopThread]
) -> None:
    """A thread doesn't wait longer for it, either."""
    thread = threads[0]
    layer = KINDS["pubsub"](hosts=[server.url], command_timeout=TIMEOUT)
    name = thread.run(layer.new_channel())
    thread.loop.call_soon_threadsafe(time.sleep, 3 * TIMEOUT)
    began = time.monotonic()
    arguments = ("room", name) if method == "group_add" else ()
    with pytest.raises((errors.ConnectionError, TimeoutError)):
        getattr(layer.sync, method)(*arguments)
    assert time.monotonic() - began < LIMIT
    thread.run(layer.close_pools())
