"""Old database connections are closed when Channels would do so to any effect."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import channels.db
import pytest
from asgiref.sync import sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import OperationalError, connections

from channels_redis_fast import _old_connections
from channels_redis_fast.consumers import FastDispatchMixin, broadcast
from support.consuming import Client, using
from support.postgres import Postgres
from support.servers import Server


class Plain(AsyncWebsocketConsumer):
    """Asks the database what it is told, or nothing."""

    groups = ["room"]

    async def receive(self, text_data: Any = None, **_: Any) -> None:
        await self.send(text_data=await sync_to_async(ask)(text_data))


class Fast(FastDispatchMixin, Plain):
    """The same with the mixin."""

    @broadcast
    def notice(event: Any) -> Any:
        return "notice"


class Unjoined(Fast):
    """The same without a layer."""

    groups: list[str] = []


CONSUMERS = [Plain, Fast]


def ask(query: str) -> str:
    if not query:
        return ""
    connection = connections["default"]
    if query == "manual commits":
        connection.ensure_connection()
        connection.set_autocommit(False)
        return "ok"
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return str(cursor.fetchone()[0])
    except OperationalError:
        return "error"


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often old connections were closed, by thread."""
    close, found = channels.db.close_old_connections, Counter[int]()

    def counted() -> None:
        found[threading.get_ident()] += 1
        close()

    monkeypatch.setattr(channels.db, "close_old_connections", counted)
    return found


@contextlib.contextmanager
def database(**settings: Any) -> Iterator[None]:
    """What connections of the thread for databases are made with."""

    def set_up(**settings: Any) -> None:
        with contextlib.suppress(AttributeError):
            connections["default"].close()
            del connections["default"]
        connections.settings["default"].update(settings)

    before = dict(connections.settings["default"])
    asyncio_run(set_up, **settings)
    try:
        yield
    finally:
        asyncio_run(set_up, **before)


def asyncio_run(function: Any, **arguments: Any) -> Any:
    """In the thread in which `sync_to_async` runs things."""
    executor = sync_to_async(function).single_thread_executor
    return executor.submit(function, **arguments).result(20)


@pytest.fixture
def file(tmp_path: Path) -> dict[str, Any]:
    """Settings of a database that can be closed; one in memory can't."""
    return {"NAME": str(tmp_path / "database")}


async def hops_of(consumer: Any, texts: list[str], hops: Counter[int]) -> list[int]:
    """How many hops each event takes; the first one is that of the connection."""
    client = Client(consumer.as_asgi())
    client.say("websocket.connect")
    await client.was_sent(1)
    found = [hops.total() if hasattr(hops, "total") else sum(hops.values())]
    for n, text in enumerate(texts):
        before = sum(hops.values())
        client.text(text)
        await client.was_sent(n + 2)
        found.append(sum(hops.values()) - before)
    await client.leave()
    assert len(hops) == 1, "in another thread"
    return found


ONE = "SELECT 1"


@pytest.mark.parametrize(
    ("settings", "texts", "expected"),
    [
        ({"CONN_MAX_AGE": None}, ["", "", ONE, ONE, ""], [1, 0, 0, 0, 0, 0]),
        ({"CONN_MAX_AGE": 0}, ["", ONE, ONE, "", ""], [1, 0, 0, 1, 1, 0]),
        ({"CONN_MAX_AGE": 600}, ["", ONE, ONE, ""], [1, 0, 0, 0, 0]),
        (
            {"CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True},
            *([ONE, ONE, "", ""], [1, 0, 1, 1, 0]),
        ),
        # An error that the handler swallows; the connection is usable, so it stays.
        (
            {"CONN_MAX_AGE": None},
            *(["SELECT 1 FROM nothing", ONE, ONE], [1, 0, 1, 0]),
        ),
        # One that isn't restored is closed.
        ({"CONN_MAX_AGE": None}, ["manual commits", ONE, ONE], [1, 0, 1, 0]),
    ],
)
async def test_a_hop_when_it_has_an_effect(
    settings: Any,
    texts: list[str],
    expected: list[int],
    hops: Counter[int],
    file: dict[str, Any],
    valkey: Server,
) -> None:
    with database(**file, **settings):
        async with using("none", valkey.url):
            assert await hops_of(Unjoined, texts, hops) == expected


async def test_after_its_time(
    hops: Counter[int], file: dict[str, Any], valkey: Server
) -> None:
    """`close_at` is Django's, in seconds; the time comes between two events."""
    with database(**file, CONN_MAX_AGE=600):
        async with using("none", valkey.url):
            client = await Client(Unjoined.as_asgi()).connect()
            client.text(ONE)
            await client.was_sent(1)
            assert sum(hops.values()) == 1
            asyncio_run(lambda: setattr(connections["default"], "close_at", 0))
            client.text("")
            await client.was_sent(2)
            assert sum(hops.values()) == 2
            assert asyncio_run(lambda: connections["default"].connection) is None
            await client.leave()


async def test_connections_of_other_threads_are_not_ours(
    hops: Counter[int], file: dict[str, Any], valkey: Server
) -> None:
    """Such as those of a view that runs in the main thread."""
    with database(**file, CONN_MAX_AGE=0), ThreadPoolExecutor(1) as another:
        another.submit(lambda: connections["default"].connect()).result(20)
        async with using("none", valkey.url):
            assert await hops_of(Unjoined, [""] * 3, hops) == [1, 0, 0, 0]
        is_open = another.submit(lambda: connections["default"].connection is not None)
        assert is_open.result(20)
        another.submit(connections.close_all).result(20)


async def test_one_opened_before_the_import(
    hops: Counter[int], file: dict[str, Any], valkey: Server
) -> None:
    with database(**file, CONN_MAX_AGE=600):
        asyncio_run(lambda: ask(ONE))
        _old_connections._opened.clear()
        async with using("none", valkey.url):
            texts = ["SELECT 1 FROM nothing", ""]
            assert await hops_of(Unjoined, texts, hops) == [1, 0, 1]


async def test_broadcasts_take_no_hop(hops: Counter[int], valkey: Server) -> None:
    async with using("core", valkey.url) as layer:
        clients = [await Client(Fast.as_asgi()).connect() for _ in range(3)]
        before = sum(hops.values())
        for n in range(5):
            await layer.group_send("room", {"type": "notice"})
            for client in clients:
                await client.was_sent(n + 1)
        assert sum(hops.values()) == before
        for client in clients:
            await client.leave()


def test_what_is_gone_is_forgotten() -> None:
    class Connection:
        connection = None

    def known() -> int:
        return sum(map(len, _old_connections._opened.values()))

    one = Connection()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_old_connections._note, one).result(20)
    before = known()
    del one
    other = Connection()
    _old_connections._note(other)
    _old_connections._note(other)  # it connected again
    assert known() == before


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as found:
        yield found


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize(
    "settings",
    [
        {"CONN_MAX_AGE": 0},
        pytest.param(
            {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}, marks=pytest.mark.slow
        ),
        pytest.param({"CONN_MAX_AGE": None}, marks=pytest.mark.slow),
    ],
    ids=["0", "60 and health checks", "None"],
)
async def test_a_database_that_restarts(
    settings: Any, postgres: Postgres, valkey: Server, hops: Counter[int]
) -> None:
    """Handlers get the same answers and errors as without the mixin."""
    outcomes = []
    for consumer in CONSUMERS:
        with database(**postgres.settings, **settings):
            async with using("core", valkey.url):
                client = await Client(consumer.as_asgi()).connect()
                client.text(ONE)
                await client.was_sent(1)
                postgres.stop()
                postgres.start()
                for n in range(4):
                    client.text(ONE)
                    await client.was_sent(n + 2)
                outcomes.append([one["text"] for one in client.sent])
                await client.leave()
    plain, fast = outcomes
    assert fast == plain
    assert fast[2:] == ["1", "1", "1"]
    assert len(hops) == 1, "hops of several threads"
