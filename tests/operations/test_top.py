"""`manage.py channel_layer top`: the processes of a layer, by their heartbeats."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from channels_redis_fast.management.top import Row, Top, run
from support.layers import opened
from support.servers import Server
from support.syncing import KINDS, blocking

LIMIT = 10.0  # seconds


async def look_until(top: Top, states: list[str]) -> list[Row]:
    """The rows, when there are such with these states."""

    async def look() -> list[Row]:
        while True:
            rows = await asyncio.to_thread(top.look)
            if sorted(row.state for row in rows) == states:
                return rows

    return await asyncio.wait_for(look(), LIMIT)


@pytest.mark.parametrize("kind", KINDS)
async def test_processes_come_and_go(kind: str, valkey: Server) -> None:
    with blocking(kind, valkey.url) as asking:
        top = await asyncio.to_thread(Top, asking)
        async with opened(valkey.url, kind=kind) as one:
            await one.new_channel()
            await one.processes()
            async with opened(valkey.url, kind=kind) as other:
                await other.new_channel()
                await other.processes()
                rows = await look_until(top, ["", ""])
                assert len({row.id for row in rows}) == 2
                assert all(0 <= row.beat < LIMIT for row in rows)
            rows = await look_until(top, ["", "gone"])


def beats(*sent: int) -> Any:
    """A layer whose process beats anew each time, ten seconds later."""
    found = [
        SimpleNamespace(
            id="p",
            host="web-1",
            pid=7,
            version="1.0",
            last_beat=10.0 * number,
            stats={"sent": {"channel": count, "group": 0}, "waiting": 1234},
        )
        for number, count in enumerate(sent)
    ]
    return [[one] for one in found]


def test_rates_between_two_heartbeats(valkey: Server) -> None:
    with blocking("core", valkey.url) as layer:
        top = Top(layer)
        found = iter(beats(100, 150))
        layer.sync.processes = lambda: next(found)
        assert [row.sent for row in top.look()] == [None]
        (row,) = top.look()
    assert (row.sent, row.received, row.waiting) == (5.0, None, 1234)


def test_what_is_written(valkey: Server) -> None:
    lines: list[str] = []
    with blocking("core", valkey.url) as layer:
        top = Top(layer)
        layer.sync.processes = lambda: beats(100)[0]
        run(top, lines.append, once=True, as_json=False, clear=False)
        run(top, lines.append, once=True, as_json=True, clear=False)
    table, as_json = lines
    head, row = table.splitlines()
    assert head.split()[:4] == ["host", "pid", "version", "beat"]
    assert row.split()[:3] == ["web-1", "7", "1.0"]
    assert "1,234" in row
    assert json.loads(as_json)[0]["host"] == "web-1"
