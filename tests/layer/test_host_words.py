"""What is said of hosts: URLs with a part missing, servers that are something else."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions as errors
from redis.sentinel import MasterNotFoundError

from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.exceptions import InvalidSetting
from channels_redis_fast.utils import create_pool, decode_hosts
from support.sentinels import SentinelSet
from support.servers import Server, free_port
from support.syncing import KINDS
from support.tlsfront import TLSFront

BAD: dict[str, tuple[Any, str]] = {
    "no scheme": ("localhost:6379", "write redis://localhost:6379"),
    "no //": ("redis:localhost:6379", "write redis://localhost:6379"),
    "TLS without //": ("rediss:localhost:6379", "write rediss://localhost:6379"),
    "unix without //": ("unix:/tmp/sock", "write unix:///tmp/sock"),
    "empty": ("", "bad host '': address is empty: a URL is as redis://localhost"),
    "db": ("redis://localhost?db=abc", "no valid value for db"),
    "timeout": ("redis://localhost?socket_timeout=x", "no valid value for socket_t"),
    "scheme": ("http://localhost", "scheme 'http': a URL is as redis://"),
    "port None": (
        ("localhost", None),
        "port must be a number from 1 to 65535, not None",
    ),
    "port None in a dict": ({"host": "h", "port": None}, "port must be .*, not None"),
    "host None": ((None, 6379), "host must be a name or an address, not None"),
    "host with a port": (("localhost:6379", 6379), "host must be .*'localhost:6379'"),
    "host with a blank": ({"host": "localhost\n"}, "host must be a name or an address"),
    "address None": ({"address": None}, "address must be a str, not None"),
    "Sentinel's port": (
        {"sentinels": [("h", "x")], "master_name": "m"},
        "port must be .*, not 'x'",
    ),
    "node": ({"cluster": ["h:1"]}, "cluster: 'h:1' is not a"),
}


@pytest.mark.parametrize(("entry", "said"), BAD.values(), ids=BAD)
def test_refused(entry: Any, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        RedisChannelLayer(hosts=[entry])


@pytest.mark.parametrize("kind", KINDS)
async def test_urls_for_all_callers(
    start_server: Callable[..., Server], kind: str
) -> None:
    """Blanks around and capital schemes are channels_redis's users' habit."""
    server = start_server(unix=True)
    rest = server.url.partition("//")[2]
    urls = [f" {server.url}\n", f"REDIS://{rest}", f"Redis://{rest}/0", server.unix_url]
    for url in [*urls, f"UNIX://{server.path}"]:
        layer: Any = KINDS[kind](hosts=[url])
        await layer.send("worker", {})
        await asyncio.to_thread(layer.sync.send, "worker", {})
        assert await layer.receive("worker") == await layer.receive("worker") == {}
        await layer.close_pools()
        layer.sync.close()


async def told(host: Any, **options: Any) -> list[Exception]:
    """What both kinds of callers are told."""
    layer = RedisChannelLayer(hosts=[host], **options)
    found = []
    for call in (
        lambda: layer.send("worker", {}),
        lambda: asyncio.to_thread(layer.sync.send, "worker", {}),
    ):
        with pytest.raises(errors.RedisError) as caught:
            await call()
        found.append(caught.value)
    await layer.close_pools()
    return found


async def test_a_sentinel_is_called_one(sentinels: SentinelSet) -> None:
    for error in await told(sentinels.sentinels[0].address):
        assert "is a Sentinel: name it in an entry of `hosts`" in str(error)
        assert "5.0" not in str(error)


async def test_a_primary_that_is_not_found(sentinels: SentinelSet) -> None:
    nobody = ("127.0.0.1", free_port())
    addresses = [*(one.address for one in sentinels.sentinels), nobody]
    host = {"sentinels": addresses, "master_name": "other", "password": "s3cret-word"}
    for error in await told(host):
        assert isinstance(error, MasterNotFoundError)
        text = str(error)
        assert "no Sentinel names a primary for 'other'" in text
        for _, port in addresses[:-1]:
            assert f":{port}: it knows no 'other'" in text
        assert f"{nobody[1]}: Error" in text
        assert "s3cret-word" not in text
        assert len(text) < 1_000


async def test_too_many_clients(start_server: Callable[..., Server]) -> None:
    server = start_server()
    server.client().config_set("maxclients", 1)
    found = [error for _ in range(5) for error in await told(server.url)]
    # The server closes at once: who writes then may be cut off before he can read.
    assert all(re.search("max number of clients|maxclients", str(e)) for e in found)
    assert any("max number of clients reached" in str(error) for error in found)


async def test_a_server_without_tls(valkey: Server) -> None:
    url = valkey.url.replace("redis:", "rediss:")
    for error in await told(url, command_timeout=1.0):
        assert "TLS is asked for: does the server at rediss://" in str(error)


async def test_a_server_with_tls(tls_front: TLSFront) -> None:
    for error in await told(tls_front.address):
        assert "may speak TLS" in str(error)


@contextmanager
def claiming(version: str) -> Iterator[tuple[str, int]]:
    """A server that says it is of this version, and knows no more."""
    import threading

    listener = socket.create_server(("127.0.0.1", 0))
    info = f"# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\n".encode()

    def serve() -> None:
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            with one:
                while data := one.recv(4096):
                    for part in data.split(b"*")[1:]:
                        answer = b"+OK\r\n"
                        if b"INFO" in part:
                            answer = b"$%d\r\n%b\r\n" % (len(info), info)
                        elif b"EVAL" in part:
                            answer = b":1\r\n"
                        one.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize("version", ["2.8.24", "4.0.14"])
async def test_a_server_that_is_too_old(version: str) -> None:
    with claiming(version) as address:
        for error in await told(address):
            assert (
                f"Redis 5.0 or later is needed: 127.0.0.1:{address[1]} is {version}"
                in (str(error))
            )


async def test_utils(valkey: Server, tmp_path: Path) -> None:
    import redis.asyncio

    assert decode_hosts(None) == [{"address": "redis://localhost:6379"}]
    hosts = decode_hosts([valkey.url, valkey.address, {"address": valkey.url, "db": 1}])
    assert hosts[1:] == [
        {"host": valkey.host, "port": valkey.port},
        {"address": valkey.url, "db": 1},
    ]
    for host in hosts:
        client = redis.asyncio.Redis.from_pool(create_pool(host))
        assert await client.ping()
        await client.aclose()
    with pytest.raises(InvalidSetting, match="must be a list"):
        decode_hosts("redis://localhost")
    with pytest.raises(InvalidSetting, match="no one pool"):
        create_pool({"cluster": [valkey.address]})
