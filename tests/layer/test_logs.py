"""Log lines decide nothing: handlers may raise, or call the layer."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import channels_redis_fast
from support.crowds import eventually_sent
from support.layers import opened, soon
from support.polling import eventually
from support.pubsubs import published
from support.servers import Server
from support.syncing import KINDS

PACKAGE = Path(channels_redis_fast.__file__).parent


class Raising(logging.Handler):
    """A handler of somebody's that fails for each line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        raise RuntimeError("from a handler")


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Iterator[Raising]:
    """Such a handler for all lines of the package."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger, handler = logging.getLogger("channels_redis_fast"), Raising()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_only_one_module_logs() -> None:
    """So that no line is written unguarded."""
    direct = re.compile(r"^\s*(import logging|from logging)|getLogger", re.MULTILINE)
    files = [p for p in PACKAGE.rglob("*.py") if "demo" not in p.parts]
    found = {p.name for p in files if direct.search(p.read_text())}
    assert found - {"__main__.py"} == {"_logs.py"}


async def test_what_can_be_read_is_received(valkey: Server, raising: Raising) -> None:
    """Beside what can't, which a line is about."""
    async with published(valkey.url) as layer:
        name = await layer.new_channel()
        payload = layer.serialize({"n": 1})
        pipeline = valkey.client().pipeline()
        for each in b"junk", *[payload] * 50:
            pipeline.publish(name, each)
        pipeline.execute()
        assert [await soon(layer, name) for _ in range(50)] == [{"n": 1}] * 50
        assert layer.counters == {"unreadable": 1}
    async with opened(valkey.url) as layer:
        name = await layer.new_channel()
        key = layer._operations.channel_key(layer._non_local(name))
        waiting = asyncio.create_task(soon(layer, name))
        await layer.send(name, {"n": 0})
        assert await waiting == {"n": 0}
        valkey.client().zadd(key, {b"junk": 0})
        await layer.send(name, {"n": 1})
        assert await soon(layer, name) == {"n": 1}
        assert layer.counters == {"unreadable": 1}
    assert len(raising.lines) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_outages_are_ridden_out(
    server: Server, raising: Raising, kind: str
) -> None:
    told = {"on_disconnect": "gone", "on_reconnect": "back"} if kind == "pubsub" else {}
    layer = KINDS[kind](hosts=[server.url], **told)
    name = await layer.new_channel()
    await eventually_sent(layer, "worker", {})
    for n in range(2):
        waiting = asyncio.create_task(soon(layer, name))
        await asyncio.sleep(0)
        server.restart(empty=True)
        if kind == "pubsub":
            assert await waiting == {"type": "gone"}
            assert await soon(layer, name) == {"type": "back"}
        else:
            await eventually_sent(layer, name, {"n": n})
            assert await waiting == {"n": n}
        await eventually(lambda: raising.lines[-1].endswith("is back"), "the line")
    await layer.close_pools()


async def test_full_channels_of_a_group(valkey: Server, raising: Raising) -> None:
    async with opened(valkey.url, capacity=1) as layer, opened(valkey.url) as other:
        name = await other.new_channel()
        await layer.group_add("room", name)
        for n in range(2):
            await layer.group_send("room", {"n": n})
        assert await soon(other, name) == {"n": 0}
    assert raising.lines == ["1 of 1 channels over capacity in group room"]
