"""Credential providers: asked by all kinds of callers, and listened to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from redis import credentials

from channels_redis_fast.client.credentials import (
    StreamingCredentialProvider,
    shared_tokens,
)
from channels_redis_fast.client.shard import Shard
from support.layers import soon
from support.polling import eventually
from support.servers import Server
from support.syncing import KINDS

USER = "user app on >one ~* &* +@all"


class OnlyAsync(credentials.CredentialProvider):
    """As those of cloud providers' asynchronous libraries."""

    async def get_credentials_async(self) -> tuple[str, str]:
        await asyncio.sleep(0.001)
        return "app", "one"


class OnlySync(credentials.CredentialProvider):
    """As most of those that applications write."""

    def get_credentials(self) -> tuple[str, str]:
        return "app", "one"


class RefusesSync(OnlyAsync):
    """Says so, as redis-py's base class does."""

    def get_credentials(self) -> tuple[str, str]:
        raise NotImplementedError("asynchronous only")


class Token:
    """As redis-py's `TokenInterface`."""

    def __init__(self, user: str, password: str) -> None:
        self._user, self._password = user, password

    def try_get(self, key: str) -> str | None:
        return self._user if key == "oid" else None

    def get_value(self) -> str:
        return self._password


class Streaming(StreamingCredentialProvider, OnlySync):
    """As redis-entraid's: a place for one listener."""

    password = "one"
    listener: Callable[[Any], Any] | None = None
    listeners = 0

    def get_credentials(self) -> tuple[str, str]:
        return "app", self.password

    async def get_credentials_async(self) -> tuple[str, str]:
        return self.get_credentials()

    def on_next(self, callback: Callable[[Any], Any]) -> None:
        self.listener = callback
        self.listeners += 1

    def on_error(self, callback: Callable[[Any], Any]) -> None:
        self.failed = callback

    def is_streaming(self) -> bool:
        return True

    def rotate(self, password: str) -> Any:
        self.password = password
        assert self.listener is not None
        return self.listener(Token("app", password))


streams = pytest.mark.skipif(
    not hasattr(credentials, "StreamingCredentialProvider"),
    reason="redis-py before 5.3 has no streaming providers",
)


@pytest.fixture
def guarded_server(start_server: Callable[..., Server]) -> Server:
    """A server with a user whose passwords change."""
    return start_server(users=[USER.removeprefix("user ")])


def entry_of(server: Server, provider: Any) -> dict[str, Any]:
    return {
        "host": server.host,
        "port": server.port,
        "credential_provider": provider,
    }


def add_password(server: Server, password: str) -> None:
    server.client().execute_command("ACL", "SETUSER", "app", f">{password}")


def calls(server: Server, command: str) -> int:
    """How often a command was called."""
    stats = server.client().info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


@pytest.mark.parametrize("provider", [OnlyAsync, OnlySync, RefusesSync])
@pytest.mark.parametrize("kind", KINDS)
async def test_all_kinds_of_callers(
    guarded_server: Server, kind: str, provider: Any
) -> None:
    layer: Any = KINDS[kind](hosts=[entry_of(guarded_server, provider())])

    def block() -> None:
        layer.sync.send("worker", {"n": 2})
        layer.sync.close()
        async_to_sync(layer.send)("worker", {"n": 3})
        layer.sync.close()

    await layer.send("worker", {"n": 1})
    await asyncio.to_thread(block)
    assert [(await soon(layer, "worker"))["n"] for _ in range(3)] == [1, 2, 3]
    await layer.close_pools()


@streams
@pytest.mark.parametrize("kind", KINDS)
async def test_each_connection_authenticates_anew(
    guarded_server: Server, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an outage, and without a lost message."""
    monkeypatch.setattr(Shard, "wait", 1.0)  # a reader does so between its waits
    provider = Streaming()
    layer: Any = KINDS[kind](hosts=[entry_of(guarded_server, provider)])
    other: Any = KINDS[kind](hosts=[entry_of(guarded_server, provider)])
    name = await layer.new_channel()
    await layer.group_add("room", name)
    received: list[int] = []

    async def receive() -> None:
        while len(received) < 300:
            received.append((await layer.receive(name))["n"])

    receiving = asyncio.create_task(receive())
    await other.group_send("room", {"n": 0})
    await eventually(lambda: received, "the first message")
    await asyncio.to_thread(layer.sync.send, "worker", {})
    before = {one["id"] for one in guarded_server.clients()}
    for n in range(1, 300):
        if n % 100 == 50:
            add_password(guarded_server, str(n))
            guarded_server.client().config_resetstat()
            provider.rotate(str(n))
            await asyncio.to_thread(layer.sync.send, "worker", {})
            await eventually(
                lambda: calls(guarded_server, "auth") == len(before), "all AUTHs"
            )
        await other.group_send("room", {"n": n})
    await asyncio.wait_for(receiving, 20)
    assert received == list(range(300))
    assert {one["id"] for one in guarded_server.clients()} == before
    assert provider.listeners == 1
    await layer.close_pools()
    await other.close_pools()
    layer.sync.close()


@streams
async def test_a_long_blocking_receive_authenticates_anew(
    guarded_server: Server,
) -> None:
    """Between two waits at the server, on the connection that it has."""
    provider = Streaming()
    layer: Any = KINDS["core"](
        hosts=[entry_of(guarded_server, provider)], command_timeout=2.0
    )
    receiving = asyncio.create_task(asyncio.to_thread(layer.sync.receive, "worker"))
    await eventually(lambda: blocked(guarded_server), "the wait")
    add_password(guarded_server, "two")
    guarded_server.client().config_resetstat()
    provider.rotate("two")
    await eventually(lambda: calls(guarded_server, "auth"), "AUTH")
    await layer.send("worker", {"n": 1})
    assert await receiving == {"n": 1}
    await layer.close_pools()
    layer.sync.close()


def blocked(server: Server) -> int:
    """How many connections wait."""
    return int(server.client().info("clients")["blocked_clients"])


@streams
@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_that_comes_while_connecting(
    guarded_server: Server, kind: str
) -> None:
    class Rotating(Streaming):
        def get_credentials(self) -> tuple[str, str]:
            found = super().get_credentials()
            if self.password == "one":
                add_password(guarded_server, "two")
                self.rotate("two")
            return found

    layer: Any = KINDS[kind](hosts=[entry_of(guarded_server, Rotating())])
    await layer.send("worker", {})
    await eventually(lambda: calls(guarded_server, "auth") == 2, "the second AUTH")
    await layer.close_pools()


@streams
async def test_a_token_that_is_refused(
    guarded_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    provider = Streaming()
    layer: Any = KINDS["core"](hosts=[entry_of(guarded_server, provider)])
    await layer.send("worker", {"n": 1})
    provider.rotate("not-known-there")
    await eventually(lambda: "refuses the new credentials" in caplog.text, "a warning")
    assert "not-known-there" not in caplog.text
    await layer.send("worker", {"n": 2})  # it stays authenticated
    provider.failed(OSError("no network"))
    assert "no new credentials: OSError: no network" in caplog.text
    await layer.close_pools()


@streams
async def test_who_awaits_the_listener(guarded_server: Server) -> None:
    """As redis-entraid does in an event loop; and other clients use what is new."""
    provider = Streaming()
    layer: Any = KINDS["core"](hosts=[entry_of(guarded_server, provider)])
    await layer.send("worker", {})
    add_password(guarded_server, "two")
    await provider.rotate("two")
    await eventually(lambda: calls(guarded_server, "auth") == 2, "the second AUTH")
    guarded_server.client().execute_command("ACL", "SETUSER", "app", "<one")
    assert await layer.connection(0).ping()
    await layer.close_pools()


@streams
def test_layers_share_one_listener() -> None:
    provider = Streaming()
    assert shared_tokens(provider) is shared_tokens(provider)
    assert provider.listeners == 1
    assert shared_tokens(OnlySync()) is None
