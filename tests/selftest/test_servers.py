"""The servers of the tests start, answer, break on demand, and are gone after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support.certificates import Certificates
from support.servers import Server

StartServer = Callable[..., Server]


def test_every_kind_answers(any_server: Server) -> None:
    assert any_server.client().ping()


@pytest.mark.parametrize("round", ["first", "second"])
def test_shared_servers_begin_empty(valkey: Server, round: str) -> None:
    assert valkey.client().dbsize() == 0
    valkey.client().set("left", "over")


def test_stop_leaves_nothing() -> None:
    with Server(unix=True) as server:
        pid, directory = server.pid, server.directory
        over_unix = redis.Redis.from_url(server.unix_url)
        assert over_unix.ping()
        over_unix.close()
    assert not psutil.pid_exists(pid)
    assert not Path(directory).exists()
    with pytest.raises(redis.ConnectionError), server.client() as client:
        client.ping()


def test_restart_with_and_without_data(server: Server) -> None:
    server.client().set("key", "value")
    port = server.port
    server.restart(empty=False)
    assert server.client().get("key") == b"value"
    server.kill()
    assert not server.running
    server.start()
    assert server.client().get("key") is None
    assert server.port == port


def test_pause_and_resume(server: Server) -> None:
    server.pause()
    with pytest.raises(redis.TimeoutError):
        server.client(socket_timeout=0.05).ping()
    server.resume()
    assert server.client().ping()


def test_password_and_users(start_server: StartServer) -> None:
    user = "alice on >secret ~asgi* resetchannels &asgi* +@all"
    server = start_server(password="p@ss / %w", users=[user])
    with pytest.raises(redis.AuthenticationError):
        server.client(password=None).ping()
    with redis.Redis.from_url(server.url) as default:
        assert default.ping()
    alice = server.client(username="alice", password="secret")
    assert alice.set("asgi.key", 1)
    with pytest.raises(redis.ResponseError, match="permissions"):
        alice.set("other", 1)


def test_a_wrong_option_says_why(start_server: StartServer) -> None:
    with pytest.raises(RuntimeError, match="nonsense"):
        start_server(options={"nonsense": "yes"})


def test_tls(tls_server: Server, certificates: Certificates) -> None:
    assert tls_server.url.startswith("rediss://")
    assert _ping(tls_server, ssl_ca_certs=certificates.ca)
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        _ping(tls_server, ssl_ca_certs=certificates.wrong_ca)


def test_client_certificates(mtls_server: Server, certificates: Certificates) -> None:
    assert _ping(mtls_server, **certificates.client_arguments())
    with pytest.raises(redis.ConnectionError):
        _ping(mtls_server, ssl_ca_certs=certificates.ca)
    with pytest.raises(redis.ConnectionError):
        _ping(
            mtls_server,
            ssl_ca_certs=certificates.ca,
            ssl_certfile=certificates.wrong_client.certificate,
            ssl_keyfile=certificates.wrong_client.key,
        )


def _ping(server: Server, **arguments: Any) -> bool:
    retry = Retry(NoBackoff(), 0)
    arguments = {"ssl": True, "retry": retry, **arguments}
    with redis.Redis(host=server.host, port=server.port, **arguments) as client:
        return bool(client.ping())
