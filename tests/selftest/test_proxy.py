"""The proxy of the tests breaks connections as it says."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support.polling import until
from support.proxy import Proxy
from support.servers import Server


@pytest.fixture
def proxy(valkey: Server, start_proxy: Callable[..., Proxy]) -> Proxy:
    return start_proxy(valkey)


@pytest.fixture
def client(proxy: Proxy) -> Iterator[redis.Redis]:
    retry = Retry(NoBackoff(), 0)
    arguments = {"retry": retry, "socket_timeout": 0.2, "protocol": 2}
    with redis.Redis(port=proxy.port, **arguments) as client:
        client.ping()
        yield client


def test_passes_on(proxy: Proxy, client: redis.Redis) -> None:
    client.set("key", b"x" * 1_000_000)
    assert client.get("key") == b"x" * 1_000_000
    assert proxy.connections == proxy.accepted == 1
    assert proxy.replies.passed > 1_000_000
    client.close()
    until(lambda: not proxy.connections, "the connection to end")


@pytest.mark.parametrize("reset", [False, True])
def test_cut(proxy: Proxy, reset: bool) -> None:
    with socket.create_connection(proxy.address, timeout=5) as sock:
        sock.sendall(b"PING\r\n")
        assert sock.recv(100) == b"+PONG\r\n"
        assert proxy.cut(reset=reset) == 1
        assert not proxy.connections
        if reset:
            with pytest.raises(ConnectionResetError):
                sock.recv(100)
        else:
            assert sock.recv(100) == b""


def test_refuse_and_accept(proxy: Proxy, client: redis.Redis) -> None:
    proxy.refuse()
    assert client.ping()
    proxy.cut()
    client.connection_pool.disconnect()
    with pytest.raises(redis.ConnectionError, match="refused"):
        client.ping()
    proxy.accept()
    assert client.ping()


@pytest.mark.parametrize("direction", ["requests", "replies"])
def test_hold_and_release(proxy: Proxy, client: redis.Redis, direction: str) -> None:
    flow = getattr(proxy, direction)
    flow.hold()
    with pytest.raises(redis.TimeoutError):
        client.incr("key")
    flow.release()
    until(lambda: client.get("key") == b"1", "the held request")


def test_cut_while_it_holds(proxy: Proxy, client: redis.Redis) -> None:
    proxy.replies.hold()
    with pytest.raises(redis.TimeoutError):
        client.ping()
    proxy.cut()
    assert not proxy.connections


def test_delay(proxy: Proxy, client: redis.Redis) -> None:
    proxy.replies.delay = 0.05
    began = time.monotonic()
    assert client.ping()
    assert time.monotonic() - began >= 0.05


def test_split(proxy: Proxy, client: redis.Redis) -> None:
    proxy.replies.split = proxy.requests.split = 1
    client.set("key", b"x" * 100)
    assert client.get("key") == b"x" * 100


def test_cut_after(proxy: Proxy, client: redis.Redis) -> None:
    with socket.create_connection(proxy.address) as sock:
        proxy.replies.cut_after(3)
        sock.sendall(b"PING\r\nPING\r\n")
        assert sock.makefile("rb").read() == b"+PO"
    assert client.ping()


def test_corrupt_after(proxy: Proxy, client: redis.Redis) -> None:
    client.set("key", "abc")
    proxy.replies.corrupt_after(len("$3\r\na"))
    assert client.get("key") == b"a\x9dc"
    assert client.get("key") == b"abc"


def test_half_close(proxy: Proxy) -> None:
    with socket.create_connection(proxy.address, timeout=5) as sock:
        sock.sendall(b"PING\r\n")
        assert sock.recv(100) == b"+PONG\r\n"
        proxy.half_close()
        assert sock.recv(100) == b""
        before = proxy.requests.passed
        sock.sendall(b"PING\r\n")
        until(lambda: proxy.requests.passed > before, "the request to pass")


def test_target_that_is_gone(server: Server, start_proxy: Callable[..., Proxy]) -> None:
    proxy = start_proxy(server)
    server.kill()
    with socket.create_connection(proxy.address, timeout=5) as sock:
        assert sock.recv(100) == b""
