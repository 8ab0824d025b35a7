"""Consumers with the mixin behind real servers, and clients of all manners."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from channels_redis_fast.core import RedisChannelLayer
from support.asgi_sites import COMMANDS, Site
from support.polling import eventually
from support.servers import HOST, Server

MEMBERS = 10


QUICK = {"daphne"}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in COMMANDS
    ],
)
def site(
    request: pytest.FixtureRequest, valkey: Server, tmp_path_factory: Any
) -> Iterator[Site]:
    log = tmp_path_factory.mktemp("site") / "log"
    found = Site(COMMANDS[request.param], valkey.url, log)
    try:
        found.ready()
        yield found
    finally:
        found.end()
    for complaint in ("never retrieved", "was destroyed", "never awaited"):
        assert complaint not in found.log(), found.log()


@pytest.fixture
async def layer(site: Site) -> AsyncIterator[Any]:
    found = RedisChannelLayer(hosts=[site.url])
    yield found
    await found.close_pools()


async def joined(site: Site, stack: AsyncExitStack, path: str = "fast") -> Any:
    """A client that is a member: it was answered."""
    client = await stack.enter_async_context(
        connect(
            f"ws://{HOST}:{site.port}/{path}/",
            compression=None,
            proxy=None,
            max_size=None,
            close_timeout=1,
            open_timeout=20,
        )
    )
    await client.send('"hello"')
    assert await said(client) == "hello"
    return client


async def said(client: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(client.recv(), 20))


async def close_code(client: ClientConnection) -> int | None:
    await asyncio.wait_for(client.wait_closed(), 20)
    return client.close_code


async def test_members_get_everything_in_order(site: Site, layer: Any) -> None:
    async with AsyncExitStack() as stack:
        clients = [await joined(site, stack) for _ in range(MEMBERS)]
        for n in range(30):
            kind = "notice" if n % 2 else "own"
            await layer.group_send("room", {"type": kind, "n": n})
            if n % 10 == 9:  # no more than their mailboxes hold
                for client in clients:
                    for m in range(n - 9, n + 1):
                        assert await said(client) == [m, ""]
        await clients[0].send('"and answers"')
        assert await said(clients[0]) == "and answers"


async def test_it_ends_with_the_code_of_a_plain_consumer(site: Site) -> None:
    async with AsyncExitStack() as stack:
        for word in ("raise", "close"):
            codes = []
            for path in ("plain", "fast"):
                client = await joined(site, stack, path)
                await client.send(json.dumps(word))
                codes.append(await close_code(client))
            assert codes[0] == codes[1]
            assert word == "raise" or codes == [4001, 4001]


async def test_a_client_that_never_reads(site: Site, layer: Any) -> None:
    """Holds up nobody else."""
    async with AsyncExitStack() as stack:
        clients = [await joined(site, stack) for _ in range(3)]
        deaf = await joined(site, stack)
        deaf.transport.pause_reading()
        text = "x" * 256 * 1024
        for n in range(48):  # 12 MB: more than the sockets hold
            kind = "notice" if n % 2 else "own"
            await layer.group_send("room", {"type": kind, "n": n, "text": text})
            for client in clients:
                assert await said(client) == [n, text]
        deaf.transport.abort()


async def test_clients_that_drop_dead(site: Site, layer: Any, valkey: Server) -> None:
    """Amid a flood: their neighbours go on, and the group forgets them."""
    async with AsyncExitStack() as stack:
        clients = [await joined(site, stack) for _ in range(MEMBERS)]
        for n in range(40):
            await layer.group_send("room", {"type": "notice", "n": n})
            if n == 20:
                for client in clients[::2]:
                    client.transport.abort()
            for client in clients[1::2]:
                assert await said(client) == [n, ""]
        redis = valkey.client()
        members = lambda: redis.zcard("asgi:group:room")  # noqa: E731
        await eventually(lambda: members() <= MEMBERS // 2, "their end", timeout=20)
        redis.close()
