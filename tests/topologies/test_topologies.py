"""The same behaviours over every way to be connected, and what each way is for."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis import exceptions as errors
from redis.credentials import CredentialProvider

from channels_redis_fast.core import RedisChannelLayer
from support.behaviours import BEHAVIOURS, Behaviour, until_it_works
from support.certificates import Certificates, Pair
from support.layers import opened, soon
from support.polling import eventually
from support.servers import Server, kept
from support.tlsfront import TLSFront

Layers = tuple[RedisChannelLayer, RedisChannelLayer]
Get = Callable[[str], Any]


def pair(server: Server) -> dict[str, Any]:
    """A dict with host and port."""
    return {"host": server.host, "port": server.port}


def in_ipv6(server: Server) -> str:
    """The URI of a server at the other loopback address."""
    return f"redis://[::1]:{server.port}"


def tls(get: Get, name: str) -> dict[str, Any]:
    """A dict for one of the servers behind TLS, that verifies it."""
    return {**pair(get(name)), "ssl": True, "ssl_ca_certs": get("certificates").ca}


# `get` gives a shared server by the name of its fixture.
TOPOLOGIES: dict[str, Callable[[Get], Any]] = {
    "URI": lambda get: get("valkey").url,
    "tuple": lambda get: get("valkey").address,
    "host and port": lambda get: pair(get("valkey")),
    "address": lambda get: {"address": get("valkey").url},
    "UNIX URI": lambda get: get("guarded").unix_url,
    "UNIX path": lambda get: {
        "path": get("guarded").path,
        "password": get("guarded").password,
    },
    "IPv6 URI": lambda get: in_ipv6(get("valkey")),
    "IPv6 tuple": lambda get: ("::1", get("valkey").port),
    "password in URI": lambda get: get("guarded").url,
    "password": lambda get: {
        **pair(get("guarded")),
        "password": get("guarded").password,
    },
    "user in URI": lambda get: get("guarded").url.replace("://:", "://default:"),
    "database": lambda get: f"{get('valkey').url}/3",
    "TLS": lambda get: tls(get, "tls_front"),
    "TLS URI": lambda get: (
        f"{get('tls_front').url}?ssl_ca_certs={quote(get('certificates').ca)}"
    ),
    "TLS address": lambda get: {
        "address": get("tls_front").url,
        "ssl_ca_certs": get("certificates").ca,
    },
    "client certificate": lambda get: {
        **pair(get("mtls_front")),
        **get("certificates").client_arguments(),
    },
    "Redis 6.2": lambda get: get("redis62").url,
    "Redis 7.0": lambda get: get("redis70").url,
    "shards": lambda get: [f"{get('valkey').url}/{db}" for db in range(3)],
    "mixed shards": lambda get: [
        get("valkey").address,
        get("guarded").unix_url,
        {**tls(get, "tls_front"), "db": 1},
        get("sentinels").host,
        get("cluster").host,
    ],
}


# Those that take another way to a server than the others; `make test` does with these.
QUICK = {"URI", "tuple", "UNIX path", "database", "client certificate", "mixed shards"}


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in TOPOLOGIES
    ],
)
def hosts(request: pytest.FixtureRequest) -> list[Any]:
    """The setting of that name, for each of the topologies."""
    if "IPv6" in request.param and not Path("/proc/net/if_inet6").read_text():
        pytest.skip("needs IPv6")
    entries = TOPOLOGIES[request.param](request.getfixturevalue)
    return entries if isinstance(entries, list) else [entries]


@pytest.fixture
async def layers(
    hosts: list[Any], valkey: Server, any_shared: None
) -> AsyncIterator[Layers]:
    """Two layers on the same hosts."""
    async with opened(*hosts) as one, opened(*hosts) as other:
        yield one, other


@pytest.mark.parametrize("behaviour", BEHAVIOURS.values(), ids=BEHAVIOURS)
async def test_behaves(layers: Layers, behaviour: Behaviour) -> None:
    await behaviour(*layers)


# Databases


@pytest.mark.parametrize("kind", ["URI", "dict", "address", "UNIX URI", "UNIX path"])
async def test_database_numbers(guarded: Server, kind: str) -> None:
    password = {"password": guarded.password}
    host = {
        "URI": f"{guarded.url}/7",
        "dict": {**pair(guarded), **password, "db": 7},
        "address": {"address": guarded.url, "db": 7},
        "UNIX URI": f"{guarded.unix_url}?db=7",
        "UNIX path": {"path": guarded.path, **password, "db": 7},
    }[kind]
    async with opened(host) as layer:
        await layer.send("worker", {"n": 1})
        assert kept(guarded.client(db=7)) == [b"asgiworker"]
        assert kept(guarded.client()) == []
        assert await soon(layer, "worker") == {"n": 1}


# Certificates


async def test_an_authority_that_is_not_the_server_s(
    tls_server: Server, certificates: Certificates, tmp_path: Path
) -> None:
    """The error says so, and the layer works as soon as the file is corrected."""
    file = tmp_path / "authority"
    shutil.copy(certificates.wrong_ca, file)
    host = {**pair(tls_server), "ssl": True, "ssl_ca_certs": str(file)}
    async with opened(host) as one, opened(host) as other:
        # redis-py 5.0 names a number alone.
        await refused(one, "CERTIFICATE_VERIFY_FAILED|Error 1 connecting")
        assert kept(tls_server.client()) == []
        shutil.copy(certificates.ca, file)
        await until_it_works(one)
        await BEHAVIOURS["sends"](one, other)


@pytest.mark.parametrize("shown", ["wrong", "none"])
async def test_a_client_certificate_that_the_server_refuses(
    mtls_server: Server, certificates: Certificates, tmp_path: Path, shown: str
) -> None:
    files = Pair(str(tmp_path / "certificate"), str(tmp_path / "key"))
    show(certificates.wrong_client, files)
    host = {**pair(mtls_server), "ssl": True, "ssl_ca_certs": certificates.ca}
    if shown == "wrong":
        host |= {"ssl_certfile": files.certificate, "ssl_keyfile": files.key}
    # The front ends the connection without an alert, and a server's may be overtaken
    # by the end of the connection.
    alert = "(?i)alert.*(certif|ca)|reset by peer|closed"
    named = "." if isinstance(mtls_server, TLSFront) else alert
    async with opened(host) as one, opened(host) as other:
        await refused(one, named)
        if shown == "wrong":
            show(certificates.client, files)
            await until_it_works(one)
            await BEHAVIOURS["sends"](one, other)


def show(pair: Pair, files: Pair) -> None:
    """Put a certificate and its key where the layer's settings say they are."""
    shutil.copy(pair.certificate, files.certificate)
    shutil.copy(pair.key, files.key)


async def refused(layer: RedisChannelLayer, text: str) -> None:
    """Every call raises an error with the text."""
    name = await layer.new_channel()
    for method, arguments in {
        "send": (name, {}),
        "group_add": ("room", name),
        "group_discard": ("room", name),
        "group_send": ("room", {}),
        "flush": (),
    }.items():
        with pytest.raises(errors.ConnectionError, match=text):
            await getattr(layer, method)(*arguments)


# Credentials


class Tokens(CredentialProvider):
    """Gives a user's present token to each new connection."""

    def __init__(self, user: str, token: str) -> None:
        self.user = user
        self.token = token
        self.asked = 0

    async def get_credentials_async(self) -> tuple[str, str]:
        """The user and the token."""
        return self.get_credentials()

    def get_credentials(self) -> tuple[str, str]:
        """The user and the token."""
        self.asked += 1
        return self.user, self.token


async def test_a_token_that_changes(start_server: Callable[..., Server]) -> None:
    server = start_server(users=["alice on >token-1 ~asgi* resetchannels &asgi* +@all"])
    admin = server.client()
    tokens = Tokens("alice", "token-1")
    host = {**pair(server), "credential_provider": tokens}
    async with opened(host) as one, opened(host) as other:
        await BEHAVIOURS["groups"](one, other)
        name = await one.new_channel()
        waiting = asyncio.create_task(soon(one, name))
        # A reader whose first connection is refused tells who waits.
        await eventually(lambda: admin.info("clients")["blocked_clients"], "the wait")
        for turn in range(2, 5):
            asked, token = tokens.asked, f"token-{turn}"
            admin.execute_command("ACL", "SETUSER", "alice", "resetpass", f">{token}")
            admin.client_kill_filter(user="alice")
            await eventually(lambda a=asked: tokens.asked > a, "to be asked again")
            with pytest.raises(errors.AuthenticationError) as caught:
                await sent_or_refused(one)
            assert "token" not in str(caught.value)
            assert not waiting.done()
            tokens.token = token
            await until_it_works(one)
            await until_it_works(other)
        await other.send(name, {"n": 1})
        assert await waiting == {"n": 1}
        await BEHAVIOURS["groups"](one, other)


async def sent_or_refused(layer: RedisChannelLayer) -> None:
    """Send while the connection is lost, until there is another outcome."""
    for _ in range(100):
        try:
            return await layer.send("worker", {})
        except errors.AuthenticationError:
            raise
        except errors.ConnectionError:
            await asyncio.sleep(0.01)
