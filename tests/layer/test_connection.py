"""The pipelined connection: over real sockets, and on a transport that records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.client.connection import PipelinedConnection
from channels_redis_fast.client.host import Host
from channels_redis_fast.client.hosts import decode_hosts
from channels_redis_fast.client.opening import open_connection
from support.certificates import Certificates
from support.polling import eventually
from support.proxy import Proxy
from support.servers import Server
from support.tlsfront import TLSFront


def host_of(entry: Any, connect_timeout: float = 5.0) -> Host:
    (host,) = decode_hosts([entry], connect_timeout)
    return host


@asynccontextmanager
async def connected(
    entry: Any, *, deadline: float = 5.0, **options: Any
) -> AsyncIterator[PipelinedConnection]:
    pipe = await open_connection(host_of(entry), deadline=deadline, **options)
    try:
        yield pipe
    finally:
        await pipe.aclose()


@pytest.fixture(params=["tcp", "unix", "tls"])
async def pipe(
    request: pytest.FixtureRequest,
    start_server: Callable[..., Server],
    certificates: Certificates,
) -> AsyncIterator[PipelinedConnection]:
    """A connection over each kind of socket."""
    if request.param == "tls":
        with TLSFront(certificates) as front:
            entry = {"address": front.url, "ssl_ca_certs": certificates.ca}
            async with connected(entry) as pipe:
                yield pipe
        return
    server = start_server(unix=request.param == "unix", password="p@ss/word")
    url = server.unix_url if request.param == "unix" else server.url
    async with connected(url) as pipe:
        yield pipe


class Recorder(asyncio.Transport):
    """A transport that only notes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self.protocol.connection_lost(None)  # type: ignore[attr-defined]


@asynccontextmanager
async def recorded(
    rest: bytes = b"", **options: Any
) -> AsyncIterator[tuple[PipelinedConnection, Recorder]]:
    loop, recorder = asyncio.get_running_loop(), Recorder()
    pipe = PipelinedConnection(loop, deadline=5.0, **options)
    pipe.adopt(recorder, None, rest)
    yield pipe, recorder
    await pipe.aclose()


# Requests and replies


async def test_replies_come_in_order(pipe: PipelinedConnection) -> None:
    futures = [pipe.call((b"ECHO", str(n))) for n in range(2_000)]
    assert await asyncio.gather(*futures) == [str(n).encode() for n in range(2_000)]


async def test_large_values(pipe: PipelinedConnection) -> None:
    for size in (1, 65_536, 3_000_000):
        value = b"\r\n$" * size
        assert await pipe.call((b"ECHO", value)) == value


async def test_one_write_per_loop_iteration() -> None:
    async with recorded() as (pipe, recorder):
        for turn in range(1, 4):
            for n in range(10):
                pipe.call((b"ECHO", n)).cancel()
            assert len(recorder.writes) == turn - 1
            await asyncio.sleep(0)
            assert len(recorder.writes) == turn
            assert recorder.writes[-1].count(b"ECHO") == 10


async def test_replies_in_pieces() -> None:
    replies = b"+one\r\n$5\r\nt\r\nwo\r\n*2\r\n:3\r\n$-1\r\n"
    async with recorded() as (pipe, _):
        futures = [pipe.call((b"GET", n)) for n in range(3)]
        for i in range(len(replies)):
            pipe.data_received(replies[i : i + 1])
        assert await asyncio.gather(*futures) == [b"one", b"t\r\nwo", [3, None]]


async def test_a_cancelled_caller_keeps_its_place(pipe: PipelinedConnection) -> None:
    futures = [pipe.call((b"ECHO", str(n))) for n in range(10)]
    for future in futures[::2]:
        future.cancel()
    assert await asyncio.gather(*futures[1::2]) == [b"1", b"3", b"5", b"7", b"9"]
    waiting = pipe.call((b"BLPOP", "list", 1))
    await asyncio.sleep(0.01)
    waiting.cancel()  # it is with the server already
    assert await pipe.call((b"ECHO", "next")) == b"next"


async def test_pushes(valkey: Server) -> None:
    pushes: list[Any] = []
    async with (
        connected(valkey.url, on_push=pushes.append) as pipe,
        connected(valkey.url) as sender,
    ):
        ping = pipe.call((b"PING",))
        subscribing = [pipe.call((b"SUBSCRIBE", name)) for name in "ab"]
        assert await ping == b"PONG"
        confirmations = await asyncio.gather(*subscribing)
        assert confirmations == [[b"subscribe", b"a", 1], [b"subscribe", b"b", 2]]
        for n in range(100):
            assert await sender.call((b"PUBLISH", "a", n)) == 1
            await pipe.call((b"PING",))
        await eventually(lambda: len(pushes) == 100, "all messages")
        assert pushes == [[b"message", b"a", str(n).encode()] for n in range(100)]


async def test_a_reply_that_looks_like_a_push_is_a_reply(valkey: Server) -> None:
    async with connected(valkey.url) as pipe:
        await pipe.call((b"RPUSH", "list", "message", "subscribe"))
        found = await pipe.call((b"LRANGE", "list", 0, -1))
        assert found == [b"message", b"subscribe"]


# Errors


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ERR something", errors.ResponseError),
        ("CLUSTERDOWN the cluster is down", errors.ClusterDownError),
        ("LOADING the dataset", errors.BusyLoadingError),
        ("MASTERDOWN link is down", errors.MasterDownError),
        ("NOAUTH required", errors.AuthenticationError),
        ("NOPERM no permissions", errors.NoPermissionError),
        ("NOSCRIPT no such", errors.NoScriptError),
        ("OOM command not allowed", errors.OutOfMemoryError),
        ("READONLY no writes", errors.ReadOnlyError),
        ("TRYAGAIN multiple keys", errors.TryAgainError),
        ("WRONGPASS invalid", errors.AuthenticationError),
    ],
)
async def test_error_replies(
    valkey: Server, text: str, kind: type[errors.RedisError]
) -> None:
    async with connected(valkey.url) as pipe:
        script = "return redis.error_reply(ARGV[1])"
        with pytest.raises(errors.RedisError) as caught:
            await pipe.call((b"EVAL", script, 0, text))
        assert type(caught.value) is kind
        assert str(caught.value).startswith(text)
        assert await pipe.call((b"PING",)) == b"PONG"


async def test_a_value_that_can_t_be_sent_is_its_caller_s_alone(
    valkey: Server,
) -> None:
    async with connected(valkey.url) as pipe:
        before = pipe.call((b"ECHO", "before"))
        with pytest.raises(TypeError):
            pipe.call((b"ECHO", object()))
        after = pipe.call((b"ECHO", "after"))
        got = await asyncio.wait_for(asyncio.gather(before, after), 2)
        assert got == [b"before", b"after"]


async def test_rubbish_ends_the_connection(
    valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    proxy = start_proxy(valkey)
    async with connected(proxy.url) as pipe:
        proxy.replies.corrupt_after(0)
        futures = [pipe.call((b"PING",)) for _ in range(3)]
        for future in futures:
            with pytest.raises(errors.ConnectionError, match="lost"):
                await asyncio.wait_for(future, 5)


async def test_a_reply_too_many_ends_the_connection() -> None:
    async with recorded() as (pipe, _):
        pipe.data_received(b"+OK\r\n")
        assert pipe.error is not None


@pytest.mark.parametrize("how", ["kill", "reset", "half-close", "abort"])
async def test_a_lost_connection(
    server: Server, start_proxy: Callable[..., Proxy], how: str
) -> None:
    proxy, lost = start_proxy(server), []
    async with connected(proxy.url) as pipe:
        pipe.on_lost = lost.append
        await pipe.call((b"PING",))
        server.pause()
        futures = [pipe.call((b"PING",)) for _ in range(3)]
        futures[1].cancel()
        await asyncio.sleep(0)
        if how == "kill":
            server.kill()
        elif how == "abort":
            pipe.abort()
        elif how == "half-close":
            proxy.half_close()
        else:
            proxy.cut(reset=True)
        for future in futures[0], futures[2], pipe.call((b"PING",)):
            with pytest.raises(errors.ConnectionError, match="lost"):
                await asyncio.wait_for(future, 5)
        assert lost == [pipe]
        await asyncio.wait_for(asyncio.shield(pipe.closed), 5)
    assert lost == [pipe]


# The watchdog


async def test_the_watchdog_ends_a_silent_connection(server: Server) -> None:
    async with connected(server.url, deadline=0.3) as pipe:
        await pipe.call((b"PING",))
        server.pause()
        began = asyncio.get_running_loop().time()
        with pytest.raises(errors.ConnectionError, match=r"no answer.* 0\.3 s"):
            await asyncio.wait_for(pipe.call((b"PING",)), 5)
        assert 0.25 < asyncio.get_running_loop().time() - began < 1.5


async def test_the_watchdog_asks_an_idle_connection(server: Server) -> None:
    lost: list[PipelinedConnection] = []
    async with connected(server.url, deadline=0.2) as pipe:
        pipe.on_lost = lost.append
        await asyncio.sleep(0.8)  # several deadlines
        assert not lost
        server.pause()
        await eventually(lambda: lost, "the loss", timeout=3)


async def test_the_watchdog_spares_who_makes_progress(valkey: Server) -> None:
    async with connected(valkey.url, deadline=0.3) as pipe:
        # Together four deadlines, each less than one.
        waits = [pipe.call((b"BLPOP", f"list{n}", 0.15)) for n in range(8)]
        assert await asyncio.gather(*waits) == [None] * 8


async def test_the_watchdog_has_no_caller_wait_longer(valkey: Server) -> None:
    """Whatever else is answered meanwhile."""
    async with connected(valkey.url, deadline=0.4) as pipe:
        waits = [asyncio.get_running_loop().create_future() for _ in range(8)]
        for n, wait in enumerate(waits):
            pipe.submit(wait, (b"BLPOP", f"list{n}", "0.15"))
        answers = await asyncio.gather(*waits, return_exceptions=True)
        assert answers[0] is None
        assert isinstance(answers[-1], errors.ConnectionError)
        assert "no answer" in str(answers[-1])
        # Those who wait for less long get what is on its way.
        assert await pipe.call((b"PING",)) == b"PONG"


async def test_the_watchdog_tells_who_was_refused(valkey: Server) -> None:
    """He isn't tried again before all is answered, which may take too long for him."""
    loop = asyncio.get_running_loop()
    async with connected(valkey.url, deadline=0.8) as pipe:
        before, refused, after = (loop.create_future() for _ in range(3))
        pipe.submit(before, (b"BLPOP", "list", "0.6"))
        error = "return redis.error_reply('READONLY no primary')"
        pipe.submit(refused, (b"EVAL", error, "1", "key"))
        await asyncio.sleep(0.5)
        pipe.submit(after, (b"BLPOP", "list", "0.5"))
        with pytest.raises(errors.ReadOnlyError):
            await refused
        assert before.done()
        assert not after.done()
        assert await after is None


async def test_the_watchdog_spares_what_a_standing_loop_did_not_read(
    valkey: Server,
) -> None:
    async with connected(valkey.url, deadline=0.2) as pipe:
        wait = asyncio.get_running_loop().create_future()
        size = 4_000_000  # more than is read at a time
        await pipe.call((b"SET", "key", bytes(size)))
        pipe.submit(wait, (b"GET", "key"))
        await asyncio.sleep(0)  # it is written
        time.sleep(0.5)  # noqa: ASYNC251
        assert len(await wait) == size


# Back-pressure


async def test_back_pressure(server: Server) -> None:
    value = b"x" * 1_000_000
    async with connected(server.url) as pipe:
        await asyncio.wait_for(pipe.drained(), 1)
        server.pause()
        futures = []
        while not pipe.paused:
            futures.append(pipe.call((b"ECHO", value)))
            await asyncio.sleep(0)
            assert len(futures) < 100
        drained = asyncio.create_task(pipe.drained())
        await asyncio.sleep(0.05)
        assert not drained.done()
        server.resume()
        await asyncio.wait_for(drained, 5)
        assert await asyncio.gather(*futures) == [value] * len(futures)


async def test_a_lost_connection_holds_nobody_back(server: Server) -> None:
    async with connected(server.url) as pipe:
        server.pause()
        while not pipe.paused:
            pipe.call((b"ECHO", b"x" * 1_000_000)).cancel()
            await asyncio.sleep(0)
        waiting = [asyncio.create_task(pipe.drained()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        server.kill()
        await asyncio.wait_for(waiting[1], 5)
