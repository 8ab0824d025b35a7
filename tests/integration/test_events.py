"""Server-sent events from a Django view by `layer.listen`, behind a real server."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.request import urlopen

import pytest

from support.asgi_sites import COMMANDS, Site
from support.layers import opened
from support.polling import eventually
from support.servers import HOST, Server, kept
from support.syncing import KINDS

pytestmark = pytest.mark.slow

AT_A_TIME = 50
ABORTED = int(os.environ.get("ABORTED", 1_500))


@pytest.fixture(
    scope="module",
    params=KINDS,
)
def site(
    request: pytest.FixtureRequest, valkey: Server, tmp_path_factory: Any
) -> Iterator[Site]:
    log = tmp_path_factory.mktemp("site") / "log"
    command = COMMANDS["uvicorn websockets"]
    found = Site(command, valkey.url, log, request.param)
    found.kind = request.param
    try:
        found.ready()
        yield found
    finally:
        found.end()
    for complaint in ("Traceback", "never retrieved", "was destroyed"):
        assert complaint not in found.log(), found.log()


@pytest.fixture
async def layer(site: Site) -> AsyncIterator[Any]:
    async with opened(site.url, kind=site.kind) as found:
        yield found


class Client:
    """A browser's EventSource, as far as it goes."""

    def __init__(self, reader: asyncio.StreamReader, writer: Any) -> None:
        self.reader = reader
        self.writer = writer

    async def said(self) -> str:
        """The next line that is no framing."""
        while True:
            line = (await asyncio.wait_for(self.reader.readline(), 20)).decode()
            if line.startswith((":", "data:")):
                return line.strip()

    def abort(self) -> None:
        """Goes without a word."""
        self.writer.transport.abort()


async def ask(site: Site, path: str) -> Client:
    reader, writer = await asyncio.open_connection(HOST, site.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    return Client(reader, writer)


async def joined(site: Site, room: str) -> Client:
    client = await ask(site, f"/events/{room}/")
    assert await client.said() == ": you are in"
    return client


def remains(site: Site) -> dict[str, int]:
    """What the site's process says of itself."""
    with urlopen(f"http://{HOST}:{site.port}/remains/", timeout=20) as answer:
        found: dict[str, int] = json.load(answer)
    return found


async def test_events_reach_their_room(site: Site, layer: Any) -> None:
    clients = [await joined(site, room) for room in ("a", "a", "b")]
    await layer.group_send("room-a", {"type": "any", "data": [1]})
    assert [await one.said() for one in clients[:2]] == ["data: [1]"] * 2
    await layer.group_send("all", {"type": "any", "data": "ž"})
    assert [json.loads((await one.said())[5:]) for one in clients] == ["ž"] * 3
    for client in clients:
        client.abort()


async def test_aborted_requests_leave_nothing(
    site: Site, layer: Any, valkey: Server
) -> None:
    """Before they are answered, while they join, and when they listen."""
    client = await joined(site, "first")  # all that stays is there then
    client.abort()
    before = await no_more_than(site, 100, 100)
    for _ in range(0, ABORTED, AT_A_TIME):
        await asyncio.gather(*(come_and_go(site, n) for n in range(AT_A_TIME)))
    await layer.group_send("all", {"type": "any", "data": 1})
    await no_more_than(site, *before)
    # Who was aborted leaves its groups by the clock.
    await eventually(lambda: not kept(valkey.client()), "all to have left")


async def come_and_go(site: Site, number: int) -> None:
    if number % 2:
        client = await joined(site, str(number % 7))
    else:
        client = await ask(site, f"/events/{number % 7}/")
        await asyncio.sleep(0.001 * number)
    client.abort()


async def no_more_than(site: Site, tasks: int, sockets: int) -> tuple[int, int]:
    """Returns when a site has no channel and no membership left, and no more than this.

    How many tasks and sockets it has.
    """
    for _ in range(200):
        found = await asyncio.to_thread(remains, site)
        counts = found["tasks"], found["sockets"]
        is_empty = not found["channels"] and not found["memberships"]
        if is_empty and counts[0] <= tasks and counts[1] <= sockets:
            return counts
        await asyncio.sleep(0.05)
    pytest.fail(f"there remain {found}")
