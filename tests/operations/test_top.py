"""`manage.py channel_layer top`: the processes of a layer, by their heartbeats."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgpack
import pytest
import redis
from redis.exceptions import ConnectionError

from channels_redis_fast.management import table, top
from channels_redis_fast.management.table import show
from channels_redis_fast.management.top import Row, Top
from support.layers import opened
from support.pretending import ALIVE, INFOS, beat, pretend, server_time
from support.servers import Server
from support.syncing import KINDS, blocking


@pytest.fixture
def looking(valkey: Server) -> Iterator[Top]:
    """Looks at the processes of a core layer on a server of its own."""
    with blocking("core", valkey.url) as layer:
        yield Top(layer)


def tell(client: redis.Redis, one: str, ago: float, **stats: Any) -> None:
    """A process beats, so long ago, and says this of itself."""
    info = {"pid": 7, "host": "web-1", "version": "1.0", "stats": stats}
    client.hset(INFOS, one, msgpack.packb(info))
    client.zadd(ALIVE, {one: server_time(client) - ago})


def row(**about: Any) -> Row:
    """A process of which nothing but its heartbeat is known, and this."""
    nothing = dict.fromkeys(["sent", "received", "waiting", "members", "dropped"])
    who = {"id": "p", "host": "web-1", "pid": 7, "version": "1.0"}
    return Row(
        **{**who, "state": "lives", "beat": 2.4, "unreachable": [], **nothing, **about}
    )


# What is seen


@pytest.mark.parametrize("kind", KINDS)
async def test_processes_come_and_go(kind: str, valkey: Server) -> None:
    with blocking(kind, valkey.url) as asking:
        looking = Top(asking)
        async with opened(valkey.url, kind=kind) as other:
            await other.new_channel()
            await beat(other)
            (found,) = await asyncio.to_thread(looking.look)
            assert (found.id, found.pid) == (other.client_prefix, os.getpid())
            assert (found.state, found.unreachable) == ("lives", [])
            assert 0 <= found.beat < 10
        (found,) = await asyncio.to_thread(looking.look)
        assert found.state == "gone"


def test_a_silent_process(looking: Top, valkey: Server) -> None:
    client = valkey.client()
    one, _ = pretend(client, 14), pretend(client, 5)
    assert [row.state for row in looking.look()] == ["lives", "lives"]
    client.zadd(ALIVE, {one: server_time(client) - 20})
    first, second = looking.look()
    assert (first.id, first.state, second.state) == (one, "silent", "lives")
    assert 14 <= first.beat < 20
    client.zadd(ALIVE, {one: server_time(client)})
    assert [row.state for row in looking.look()] == ["lives", "lives"]


def test_who_is_not_there_is_forgotten(
    looking: Top, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = valkey.client()
    one = pretend(client, 1)
    looking.look()
    client.zrem(ALIVE, one)
    assert [row.state for row in looking.look()] == ["gone"]
    monkeypatch.setattr(top, "_SHOWN_FOR", 0.0)
    assert looking.look() == []


def test_it_leaves_nothing_behind(looking: Top, valkey: Server) -> None:
    looking.look()
    assert valkey.client().exists(ALIVE, INFOS) == 2
    looking.close()
    assert valkey.client().dbsize() == 0


def test_rates_between_two_heartbeats(looking: Top, valkey: Server) -> None:
    client = valkey.client()
    tell(client, "p", 10, sent={"channel": 100, "group": 20}, waiting=1234)
    (found,) = looking.look()
    assert (found.sent, found.received, found.waiting) == (None, None, 1234)
    tell(client, "p", 5, sent={"channel": 100, "group": 70}, received=3)
    for _ in range(2):  # also while there is no new one
        (found,) = looking.look()
        assert found.sent == pytest.approx(10, rel=0.1)
        assert (found.received, found.waiting) == (None, None)


def test_servers_that_are_missed(looking: Top, valkey: Server) -> None:
    client = valkey.client()
    states = {"a": "up", "b": "down", "c": "unused", "d": "refusing"}
    hosts = {f"redis://{name}": {"state": state} for name, state in states.items()}
    tell(client, "p", 1, hosts=hosts)
    (found,) = looking.look()
    assert found.unreachable == ["redis://b down", "redis://d refusing"]


@pytest.mark.parametrize("odd", ["x", None, [1], {"a": "b"}, {"a": None}])
def test_stats_of_another_version(odd: Any, looking: Top, valkey: Server) -> None:
    names = ("sent", "received", "waiting", "memberships", "dropped", "hosts")
    for ago in (10, 5):
        tell(valkey.client(), "p", ago, **dict.fromkeys(names, odd))
        (found,) = looking.look()
        assert table.table([found])


# What is written


def test_a_table() -> None:
    rows = [
        row(state="silent", beat=21.2, waiting=0),
        row(host="web-22", pid=123, waiting=1234, unreachable=["redis://x down"]),
    ]
    assert table.table(rows) == [
        "1 process, 1 silent",
        "state   host    pid  version  beat  waiting",
        "silent  web-1     7  1.0      21 s        0",
        "misses  web-22  123  1.0       2 s    1,234  redis://x down",
    ]


def test_columns_that_nobody_tells() -> None:
    head = table.table([row()])[1]
    assert head.split() == ["state", "host", "pid", "version", "beat"]
    lines = table.table([row(sent=2.0), row(members=3)])
    assert lines[1].split()[5:] == ["sent/s", "members"]
    assert lines[2].split()[-2:] == ["2", "-"]


def test_nobody() -> None:
    (line,) = table.table([])
    assert line.startswith("no process")


def test_what_others_wrote_does_not_steer_the_terminal() -> None:
    lines = table.table([row(host="a\x1b[2J", version="\x9b1m\n")])
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def written(look: Any, **options: bool) -> tuple[list[str], list[str]]:
    """What is written, and what is told, until there is one look or Ctrl-C."""
    lines: list[str] = []
    told: list[str] = []
    options = {"once": False, "as_json": False, "is_screen": False, **options}
    with suppress(KeyboardInterrupt):
        show(look, lines.append, told.append, **options)
    return lines, told


def test_json() -> None:
    (line,), _ = written(lambda: [row(waiting=1)], once=True, as_json=True)
    (found,) = json.loads(line)
    assert (found["host"], found["waiting"], found["sent"]) == ("web-1", 1, None)


def test_a_small_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "6")
    (text,), _ = written(lambda: [row()] * 9, once=True, is_screen=True)
    assert text.startswith("\x1b[H\x1b[J9 processes\n")
    lines = text.removeprefix("\x1b[H\x1b[J").split("\n")
    assert max(map(len, lines)) == 20
    assert len(lines) == 5
    assert lines[-1] == "... and 7 more"


def test_a_screen_that_is_too_narrow_for_hosts() -> None:
    """Their ends are seen, and all numbers; what is beyond is cut off."""
    pods = [f"shop-web-5d9c7b6f4-{end}" for end in ("x2x9z", "kk4tp")]
    numbers = {"sent": 1e4, "received": 1e5, "waiting": 0, "members": 0, "dropped": 5}
    rows = [row(host=pod, pid=17, unreachable=["b"], **numbers) for pod in pods]
    _, head, first, second = table.table(rows, 80)
    assert (len(head), first[77:]) == (80, "  5  b")
    assert ("x2x9z" in first, "kk4tp" in second) == (True, True)
    assert table.table(rows, 200) == table.table(rows)
    assert pods[0] in table.table(rows)[2]


def test_redis_that_is_away_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told once each time, and the looks go on."""
    away = ConnectionError("away")
    looks = iter([[row()], away, away, [row()], away, KeyboardInterrupt()])

    def look() -> list[Row]:
        found = next(looks)
        if isinstance(found, list):
            return found
        raise found

    monkeypatch.setattr(table, "_EVERY", 0.0)
    lines, told = written(look)
    assert len(lines) == 2
    assert told == ["away; trying again"] * 2


def test_redis_that_is_away_at_first() -> None:
    def look() -> list[Row]:
        raise ConnectionError("away")

    with pytest.raises(ConnectionError):
        written(look)
