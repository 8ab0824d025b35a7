"""A password is in nothing that is raised or logged, wherever it was given."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from redis import credentials
from redis import exceptions as errors

from channels_redis_fast.exceptions import InvalidSetting
from channels_redis_fast.serializers import MsgPackSerializer, registry
from support.sentinels import SentinelSet
from support.servers import Server, free_port
from support.syncing import KINDS, Interrupted, interrupting
from support.telling import everything_told, shown

S = "s3cr3t"

# No host at all, or one with an argument that isn't one.
REFUSED: dict[str, Any] = {
    "no scheme": f"default:{S}@redis.example:6379",
    "no //": f"redis:u:{S}@127.0.0.1:6999",
    "no // and no host": f"redis:{S}",
    "no host": f"redis://:{S}",
    "password for a port": f"redis://u:{S}",
    "port": f"redis://u:{S}@127.0.0.1:port",
    "slash": f"redis://u:a/{S}@127.0.0.1:1",
    "question mark": f"redis://u:a?{S}@127.0.0.1:port",
    "question mark after a number": f"redis://u:1?{S}=1@127.0.0.1",
    "hash": f"redis://u:a#{S}@127.0.0.1:port",
    "bracket": f"redis://u:[{S}@127.0.0.1",
    "scheme": f"http://u:{S}@127.0.0.1",
    "query": f"redis://127.0.0.1:port?password={S}",
    "at in a query": f"redis://127.0.0.1:port?password=a@{S}",
    "unix without //": f"unix:/tmp/none.sock?password={S}",
    "bytes": f"redis://u:{S}@127.0.0.1".encode(),
    "pair": (f"default:{S}@h", 6379),
    "triple": ("h", 6379, S),
    "quadruple": ("h", 6379, "u", S),
    "port of a pair": ("h", S.encode()),
    "host": {"host": f"default:{S}@h"},
    "query of a host": {"host": f"h?password={S}"},
    "port of a host": {"host": f"h:{S}"},
    "query of a node": {"cluster": [(f"h?password={S}", 1)]},
    "passwd": {"host": "h", "passwd": S},
    "pwd": {"host": "h", "pwd": S},
    "auth": {"address": "redis://h", "auth": S},
    "password and port": {"host": "h", "port": "x", "password": S},
    "both": {"host": "h", "password": S, "credential_provider": object()},
    "nested": {"host": "h", "port": "x", "options": {"password": S}},
    "ssl_password": {"host": "h", "ssl": True, "ssl_password": S, "x": 1},
    "address with port": {"address": f"redis://u:{S}@h:port"},
    "address of bytes": {"address": f"redis://u:{S}@h".encode()},
    "Sentinel": {"sentinels": [(f"default:{S}@h", 1)], "master_name": "m"},
    "Sentinel as text": {"sentinels": [f"default:{S}@h:1"], "master_name": "m"},
    "Sentinel's kwargs": {"master_name": "m", "sentinel_kwargs": {"password": S}},
    "Sentinels' triples": {"sentinels": [("h", 1, S)], "master_name": "m"},
    "Sentinel's bad argument": {
        **{"sentinels": [("h", 1)], "master_name": "m"},
        "sentinel_kwargs": {"passwd": S},
    },
    "node": {"cluster": [f"u:{S}@h:1"]},
    "cluster": {"cluster": [("h", 1)], "passwd": S},
}
# Hosts as they should be; nobody listens at {port}.
GOOD: dict[str, Callable[[int], Any]] = {
    "URL": lambda port: f"redis://u:{S}@127.0.0.1:{port}/0",
    "encoded": lambda port: f"redis://u:a%40{S}@127.0.0.1:{port}",
    "in the query": lambda port: f"redis://127.0.0.1:{port}?username=u&password={S}",
    "TLS": lambda port: f"rediss://u:{S}@127.0.0.1:{port}",
    "socket": lambda port: f"unix://u:{S}@/tmp/none-{port}",
    "dict": lambda port: {"host": "127.0.0.1", "port": port, "password": S},
    "address": lambda port: {"address": f"redis://127.0.0.1:{port}", "password": S},
    "path": lambda port: {"path": f"/tmp/none-{port}", "password": S},
    "ssl": lambda port: {
        **{"host": "127.0.0.1", "port": port, "ssl": True},
        "password": S,
    },
    "provider": lambda port: {
        **{"host": "127.0.0.1", "port": port},
        "credential_provider": credentials.UsernamePasswordCredentialProvider("u", S),
    },
    "Sentinel": lambda port: {
        **{"sentinels": [("127.0.0.1", port)], "master_name": "m"},
        **{"password": S, "sentinel_kwargs": {"password": f"{S}-too"}},
    },
    "Cluster": lambda port: {"cluster": [("127.0.0.1", port)], "password": S},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entry", REFUSED.values(), ids=REFUSED)
def test_settings_that_are_refused(kind: str, entry: Any) -> None:
    for hosts in [entry], [entry, "redis://h"], entry:
        with pytest.raises((InvalidSetting, TypeError)) as caught:
            KINDS[kind](hosts=hosts)
        assert S not in everything_told(caught.value)
    with pytest.raises(InvalidSetting) as caught:
        KINDS[kind](hosts=[entry], capacity=-1)
    assert S not in everything_told(caught.value)


class Picky(MsgPackSerializer):
    """A serialiser that doesn't know all arguments."""

    def __init__(self, symmetric_encryption_keys: Any = None) -> None:
        super().__init__(symmetric_encryption_keys)


# What the constructor has against encryption keys, or against what is beside them.
KEYS: dict[str, dict[str, Any]] = {
    "one key": {"symmetric_encryption_keys": S},
    "no text": {"symmetric_encryption_keys": [S, 1]},
    "no UTF-8": {"symmetric_encryption_keys": [f"{S}\ud800"]},
    "empty": {"symmetric_encryption_keys": [S, ""]},
    "encryption": {"symmetric_encryption_keys": [S], "encryption": "rot13"},
    "expiry": {"symmetric_encryption_keys": [S], "expiry": -1},
    "hosts": {"symmetric_encryption_keys": [S], "hosts": 1},
    "format": {"symmetric_encryption_keys": [S], "serializer_format": "yaml"},
    "serialiser": {"symmetric_encryption_keys": [S], "serializer_format": "picky"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", KEYS.values(), ids=KEYS)
def test_encryption_keys(
    kind: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._registry, "picky", Picky)
    with pytest.raises(Exception, match=r".") as caught:
        KINDS[kind](**options)
    assert S not in everything_told(caught.value)
    layer = KINDS[kind](symmetric_encryption_keys=[S])
    assert S not in shown(vars(layer))


async def provoke(layer: Any, caplog: pytest.LogCaptureFixture, what: Any) -> None:
    """Has all kinds of calls fail, and looks at what they tell."""
    caplog.set_level(logging.DEBUG)

    def block(call: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: asyncio.to_thread(call)

    calls: list[Callable[[], Any]] = [
        lambda: layer.send("worker", {}),
        lambda: layer.group_send("room", {}),
        block(lambda: layer.sync.send("worker", {})),
        block(lambda: layer.sync.group_send("room", {})),
        block(lambda: layer.sync.receive("worker", timeout=0.1)),
        block(lambda: async_to_sync(layer.group_send)("room", {})),
    ]
    for call in calls:
        with pytest.raises((what, TimeoutError)) as caught:
            await call()
        assert S not in everything_told(caught.value)
    outcomes = await layer.send_many([("worker", {})])
    outcomes += await asyncio.to_thread(layer.sync.send_many, [("worker", {})])
    for outcome in outcomes:
        assert outcome is not None
        assert S not in everything_told(outcome)
    assert S not in f"{layer} {layer!r} {shown(vars(layer))}"
    assert S not in shown([vars(host) for host in layer._hosts])
    await layer.close_pools()
    layer.sync.close()
    told = "\n".join(f"{r.getMessage()} {r.exc_info} {r.args}" for r in caplog.records)
    assert told
    assert S not in told


# redis-py 5.0 forgets to close a UNIX socket that nobody listens at.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("host", GOOD.values(), ids=GOOD)
async def test_nobody_listens(
    kind: str, host: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    layer = KINDS[kind](hosts=[host(free_port())], command_timeout=1.0)
    await provoke(layer, caplog, errors.RedisError)


@pytest.mark.parametrize("name", ["URL", "dict", "provider", "in the query", "Cluster"])
async def test_the_password_is_wrong(
    guarded: Server, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    layer = KINDS["core"](hosts=[GOOD[name](guarded.port)], command_timeout=1.0)
    await provoke(layer, caplog, errors.RedisError)


async def test_no_primary(
    sentinels: SentinelSet, caplog: pytest.LogCaptureFixture
) -> None:
    """Some versions of redis-py print a Sentinel pool's arguments."""
    addresses = [one.address for one in sentinels.sentinels]
    host = {"sentinels": addresses, "master_name": "other", "password": S}
    layer = KINDS["core"](hosts=[host], command_timeout=1.0)
    await provoke(layer, caplog, errors.ConnectionError)


@pytest.mark.parametrize("name", ["URL", "dict", "provider", "Sentinel", "Cluster"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_handler_raises_while_connecting(kind: str, name: str) -> None:
    """As a task queue's soft time limit does; the server says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        layer = KINDS[kind](hosts=[GOOD[name](silent.getsockname()[1])])
        for call in layer.sync.send, layer.sync.group_send:
            with pytest.raises(Interrupted) as caught, interrupting(0.1):
                call("worker", {})
            assert S not in everything_told(caught.value)
            assert caught.traceback[-1].name == "interrupt"


class Failing(credentials.CredentialProvider):
    """Has a bug."""

    def get_credentials(self) -> Any:
        raise LookupError("no token")


def test_a_provider_raises(valkey: Server) -> None:
    """It is seen where."""
    host = {"host": valkey.host, "port": valkey.port, "credential_provider": Failing()}
    layer = KINDS["core"](hosts=[host])
    with pytest.raises(LookupError, match="no token") as caught:
        layer.sync.send("worker", {})
    assert caught.traceback[-1].name == "get_credentials"
