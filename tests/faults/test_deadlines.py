"""`command_timeout` bounds every call, from its beginning to its error."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import product
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


# A kind of layer, a method, and whether the layer is connected already.
Case = tuple[str, str, bool]


def cases_of(*states: bool) -> dict[Case, tuple[Any, ...]]:
    """All methods of both layers, with what they are called with."""
    return {
        (kind, method, connected): arguments
        for kind in KINDS
        for method, arguments in calls_of(kind, "x.y!z").items()
        for connected in states
    }


def layers_of(cases: Iterable[Case], host: Any) -> dict[Case, Any]:
    """A layer for each, so that no call waits for another's connection."""
    return {
        case: KINDS[case[0]](hosts=[host], command_timeout=TIMEOUT) for case in cases
    }


@both
async def test_awaited(servers: list[Server]) -> None:
    await check_awaited(host_of(servers), lambda: silence(servers), True, False)


async def test_awaited_over_a_slow_line(
    valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    """What comes keeps no caller waiting, if it isn't his whole answer."""
    proxy = start_proxy(valkey)
    await check_awaited(proxy.url, lambda: slowness(proxy), True)


async def check_awaited(
    host: Any, trouble: Callable[[], AbstractContextManager[None]], *states: bool
) -> None:
    """Whether all methods that are called in trouble end in time, by an error."""
    took: dict[Case, float] = {}

    async def timed(case: Case, arguments: tuple[Any, ...]) -> None:
        began = time.monotonic()
        try:
            answer = await getattr(layers[case], case[1])(*arguments)
        except errors.ConnectionError as error:
            answer = [error]
        took[case] = time.monotonic() - began
        assert case[1] == "group_discard" or all(answer), (case, answer)

    cases = cases_of(*states)
    layers = layers_of(cases, host)
    for case, layer in layers.items():
        kind, method, connected = case
        # A Pub/Sub layer joins with a channel that it has.
        if connected or (kind, method) == ("pubsub", "group_add"):
            name = await layer.new_channel()
            await layer.group_add("room", name)
            await layer.send("other", MESSAGE)
            cases[case] = calls_of(kind, name)[method]
    with trouble():
        await asyncio.gather(*(timed(*each) for each in cases.items()))
    assert {case: t for case, t in took.items() if t > LIMIT} == {}
    for layer in layers.values():
        await layer.close_pools()


async def test_flush_while_a_cluster_is_looked_up() -> None:
    """However long its nodes may take to be connected to."""

    async def flush(kind: str) -> None:
        layer = KINDS[kind](hosts=[host], command_timeout=TIMEOUT)
        began = time.monotonic()
        with pytest.raises(errors.ConnectionError):
            await layer.flush()
        assert time.monotonic() - began < LIMIT
        await layer.close_pools()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        nodes = [silent.getsockname()]
        host = {"cluster": nodes, "socket_connect_timeout": 10 * TIMEOUT}
        await asyncio.gather(*map(flush, KINDS))


@both
def test_blocking(servers: list[Server]) -> None:
    """Each call in a thread of its own."""
    cases = cases_of(True, False)
    for method in "group_add", "new_channel":  # an event loop does these
        for connected in True, False:
            del cases["pubsub", method, connected]
    layers = layers_of(cases, host_of(servers))
    for (*_, connected), layer in layers.items():
        if connected:
            layer.sync.send("other", MESSAGE)

    def timed(case: Case) -> float:
        began = time.monotonic()
        try:
            answer = getattr(layers[case].sync, case[1])(*cases[case])
        except (errors.ConnectionError, errors.TimeoutError) as error:
            answer = [error]
        took = time.monotonic() - began
        assert all(answer), (case, answer)
        return took

    with silence(servers), ThreadPoolExecutor(len(cases)) as pool:
        took = dict(zip(cases, pool.map(timed, cases), strict=True))
    assert {case: t for case, t in took.items() if t > LIMIT} == {}
    for layer in layers.values():
        layer.sync.close()


async def test_the_first_that_is_encrypted(
    valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    """It asks for Redis's clock first, in the same time."""
    proxy = start_proxy(valkey)
    options = {"command_timeout": TIMEOUT, "symmetric_encryption_keys": ["a key"]}

    async def first(kind: str, way: str, method: str, argument: Any) -> Any:
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
        return found[0] if method == "send_many" else found

    connected, slow = asyncio.Semaphore(0), asyncio.Event()
    calls = {"send": ("jobs", MESSAGE), "send_many": ([("more", MESSAGE)],)}
    cases = product(KINDS, ("loop", "thread"), calls)
    work = {case: asyncio.create_task(first(*case, calls[case[2]])) for case in cases}
    for _ in work:
        await connected.acquire()
    proxy.replies.delay = 0.7 * TIMEOUT  # two answers take too long
    slow.set()
    for case, task in work.items():
        found = await task
        expected = errors.ConnectionError, errors.TimeoutError
        assert isinstance(found, expected), (case, found)


async def test_the_steps_of_a_call(
    valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    """All have one deadline: two answers take too long."""
    proxy = start_proxy(valkey)
    layers = [KINDS["core"](hosts=[proxy.url], command_timeout=TIMEOUT) for _ in "1234"]
    for layer in layers[::2]:
        await layer.group_add("room", "x.y!z")
    for layer in layers[1::2]:
        await asyncio.to_thread(layer.sync.group_add, "room", "x.y!z")
    proxy.replies.delay = 0.7 * TIMEOUT
    many = [("room", MESSAGE)]
    calls = (
        layers[0].group_clear("room"),
        asyncio.to_thread(layers[1].sync.group_clear, "room"),
        layers[2].group_send_many(many),
        asyncio.to_thread(layers[3].sync.group_send_many, many),
    )
    for found in await asyncio.gather(*calls, return_exceptions=True):
        error = found[0] if isinstance(found, list) else found
        assert isinstance(error, (errors.ConnectionError, errors.TimeoutError))
    for layer in layers:
        await layer.close_pools()
        layer.sync.close()


async def test_the_steps_of_a_joining(
    valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    proxy = start_proxy(valkey)
    core, pubsub = layers = [
        KINDS[kind](
            hosts=[proxy.url], command_timeout=TIMEOUT, history={"room": (10, 60)}
        )
        for kind in ("core", "pubsub")
    ]
    own = await asyncio.to_thread(core.sync.new_channel)
    name = await pubsub.new_channel()
    await asyncio.to_thread(core.sync.group_position, "room")
    await pubsub.group_position("room")
    proxy.replies.delay = 0.7 * TIMEOUT
    calls = (
        asyncio.to_thread(core.sync.group_join, "room", own),
        pubsub.group_join("room", name),
    )
    for found in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(found, (errors.ConnectionError, errors.TimeoutError))
    for layer in layers:
        await layer.close_pools()
        layer.sync.close()


def test_of_an_event_loop_that_stands_still(
    server: Server, threads: list[LoopThread]
) -> None:
    """A thread doesn't wait longer for it, either."""
    thread = threads[0]
    layer = KINDS["pubsub"](hosts=[server.url], command_timeout=TIMEOUT)
    name = thread.run(layer.new_channel())
    calls = {"new_channel": (), "group_add": ("room", name)}
    thread.loop.call_soon_threadsafe(time.sleep, 2 * TIMEOUT)

    def timed(method: str) -> float:
        began = time.monotonic()
        with pytest.raises((errors.ConnectionError, TimeoutError)):
            getattr(layer.sync, method)(*calls[method])
        return time.monotonic() - began

    with ThreadPoolExecutor(len(calls)) as pool:
        assert max(pool.map(timed, calls)) < LIMIT
    thread.run(layer.close_pools())
