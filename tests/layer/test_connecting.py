"""Opening a connection: what redis-py does before the pipe is ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.client.host import Host
from channels_redis_fast.client.hosts import decode_hosts
from channels_redis_fast.client.opening import open_connection
from support.layers import soon
from support.polling import eventually
from support.servers import Server
from support.syncing import KINDS


def host_of(entry: Any, connect_timeout: float = 5.0) -> Host:
    (host,) = decode_hosts([entry], connect_timeout)
    return host


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[tuple[str, int]]:
    """A server of the test's own; its address."""
    tasks: set[asyncio.Task[Any]] = set()

    async def accepted(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await serve(reader, writer)
            await reader.read()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        await eventually(lambda: all(t.done() for t in tasks), "the clients to go")


class Late:
    """A way to a server, by which something arrives just before the pipe is ours."""

    def __init__(self, host: Host, connected: asyncio.Event) -> None:
        self._host = host
        self._connected = connected
        self.connect_timeout = host.connect_timeout
        self.tokens = host.tokens
        self.note_time = None
        self.traffic = host.traffic
        self.silence = host.silence
        self.explain = host.explain

    def make_connection(self, *, pushes: bool = False) -> Any:
        return self._host.make_connection(pushes=pushes)

    async def connect(self, connection: Any) -> None:
        await self._host.connect(connection)
        self._connected.set()
        await eventually(lambda: connection._reader._buffer, "what comes late")

    async def release(self, connection: Any) -> None: ...


async def test_bytes_that_came_before_the_pipe_was_ours_are_read() -> None:
    connected = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def push() -> None:
            await connected.wait()
            writer.write(b"*3\r\n$7\r\nmessage\r\n$7\r\nchannel\r\n$2\r\nhi")

        pushing = asyncio.create_task(push())
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"\r\n+PONG\r\n")
            elif line.startswith(b"*"):
                writer.write(b"" if connected.is_set() else b"+OK\r\n")
        await pushing

    pushes: list[Any] = []
    async with listening(serve) as (host, port):
        opener = Late(host_of((host, port)), connected)
        pipe = await open_connection(opener, deadline=5.0, on_push=pushes.append)
        assert await asyncio.wait_for(pipe.call((b"PING",)), 5) == b"PONG"
        assert pushes == [[b"message", b"channel", b"hi"]]
        await pipe.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_protocol_in_the_url(valkey: Server, kind: str) -> None:
    """It is ours to choose: we read what comes."""
    layer: Any = KINDS[kind](hosts=[f"{valkey.url}?protocol=3"])
    name = await layer.new_channel()
    for n in range(5):
        await layer.group_add("room", name)
        await layer.group_send("room", {"n": n})
        await layer.send(name, {"n": n})
        await layer.send("worker", {"n": n})
    for n in range(5):
        assert [await soon(layer, name) for _ in range(2)] == [{"n": n}] * 2
        assert await soon(layer, "worker") == {"n": n}
    await asyncio.to_thread(layer.sync.send, "worker", {"n": 5})
    assert await soon(layer, "worker") == {"n": 5}
    await layer.close_pools()
    layer.sync.close()


async def test_nobody_listens(server: Server) -> None:
    server.kill()
    with pytest.raises(errors.ConnectionError, match=str(server.port)):
        await open_connection(host_of(server.url), deadline=5.0)


async def test_a_wrong_password(start_server: Callable[..., Server]) -> None:
    server = start_server(password="right")
    entry = {"host": server.host, "port": server.port, "password": "the-wrong-one"}
    with pytest.raises(errors.AuthenticationError) as caught:
        await open_connection(host_of(entry), deadline=5.0)
    assert "the-wrong-one" not in str(caught.value)


async def test_a_server_that_accepts_and_says_nothing() -> None:
    async def serve(*_: object) -> None: ...

    async with listening(serve) as address:
        host = host_of(f"redis://:secret@{address[0]}:{address[1]}", 0.2)
        began = asyncio.get_running_loop().time()
        with pytest.raises(errors.ConnectionError) as caught:
            await open_connection(host, deadline=5.0)
        assert asyncio.get_running_loop().time() - began < 2
        assert f"{address[0]}:{address[1]}" in str(caught.value)
        assert "secret" not in str(caught.value)
