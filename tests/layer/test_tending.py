"""Members stay and leave by the clock, in whatever way their process calls."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from redis import exceptions as errors

from channels_redis_fast import _core_parts
from channels_redis_fast.client.blocking_pool import BlockingConnection
from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.runtime.blocking_engine import run_without_loop
from support.layers import soon
from support.polling import until
from support.refusing import RefusingProxy
from support.servers import Server
from support.syncing import blocking

MEMBERSHIPS = "channels_redis_fast.runtime.memberships"
UPKEEP = "channels_redis_fast.runtime.upkeep"
ROOM = "asgi:group:room"


def members(server: Server) -> set[str]:
    return {name.decode() for name in server.client().zrange(ROOM, 0, -1)}


def expiries(server: Server, count: int) -> Callable[[], bool]:
    """Whether a membership was made new so many times."""
    seen: set[float] = set()

    def enough() -> bool:
        seen.update(
            score for _, score in server.client().zrange(ROOM, 0, -1, False, True)
        )
        return len(seen) > count

    return enough


@pytest.mark.parametrize("where", ["its channel", "a normal channel"])
def test_a_member_that_waits_in_a_thread(valkey: Server, where: str) -> None:
    with blocking("core", valkey.url, group_expiry=1) as layer:
        name = layer.sync.new_channel()
        layer.sync.group_add("room", name)
        with ThreadPoolExecutor(1) as pool:
            channel = name if where == "its channel" else "worker"
            waiting = pool.submit(layer.sync.receive, channel, 20)
            until(expiries(valkey, 2), "the refreshes")
            layer.sync.send(channel, {"n": 1})
            assert waiting.result(20) == {"n": 1}


def test_a_member_that_waits_in_short_loops(valkey: Server) -> None:
    layer = RedisChannelLayer(hosts=[valkey.url], group_expiry=1)

    async def look() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await soon(layer, name, 0.05)

    name = asyncio.run(layer.new_channel())
    asyncio.run(layer.group_add("room", name))
    enough = expiries(valkey, 2)
    until(lambda: asyncio.run(look()) or enough(), "the refreshes")


@pytest.mark.parametrize("way", ["layer.sync", "async_to_sync", "receive", "loops"])
def test_who_ended_with_the_last_loop(
    valkey: Server, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(_core_parts, "_TIDY_EVERY", 0.05)
    with blocking("core", valkey.url, expiry=0.2) as layer:

        async def join() -> None:
            name = await layer.new_channel()
            await layer.group_add("room", name)

        def receive() -> None:
            with pytest.raises(TimeoutError):
                layer.sync.receive("worker", 0.3)

        asyncio.run(join())
        gc.collect()
        calls = {
            "layer.sync": lambda: layer.sync.group_send("other", {}),
            "async_to_sync": lambda: async_to_sync(layer.group_send)("other", {}),
            "receive": receive,
            "loops": lambda: asyncio.run(layer.group_send("other", {})),
        }
        until(lambda: calls[way]() or not members(valkey), "the member to leave")


def test_a_refresh_that_failed_comes_again(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{UPKEEP}._RETRY_AFTER", 0.1)
    with blocking("core", valkey.url, group_expiry=2) as layer:
        memberships = layer._memberships
        name = layer.sync.new_channel()
        layer.sync.group_add("room", name)
        asked: list[Any] = []

        async def fail(requests: Any) -> list[Any]:
            asked.append(requests)
            if len(asked) == 1:
                raise errors.ConnectionError
            return [errors.ConnectionError() for _ in requests]

        until(lambda: _tend(memberships, fail) or len(asked) == 2, "two attempts")
        until(lambda: memberships.refreshes_due, "the third")
        enough = expiries(valkey, 1)
        assert not enough()
        layer.sync.send("worker", {})  # which makes the third
        assert enough()


def test_who_ended_while_redis_refuses(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves when Redis takes it."""
    monkeypatch.setattr(f"{UPKEEP}._RETRY_AFTER", 0.1)
    with (
        RefusingProxy(valkey) as proxy,
        blocking("core", proxy.url, command_timeout=0.2) as layer,
    ):
        name = layer.sync.new_channel()
        layer.sync.group_add("room", name)
        layer._memberships.end(name)
        with proxy.refusing("NOREPLICAS Not enough good replicas to write."):
            until(lambda: layer._tidy() or proxy.requests.refused, "a refusal")
        assert members(valkey)
        until(lambda: layer._tidy() or not members(valkey), "the member to leave")


def _tend(memberships: Any, run_all: Any) -> None:
    if memberships.refreshes_due:
        with contextlib.suppress(errors.ConnectionError):
            run_without_loop(memberships.tend(run_all))


def test_a_server_that_hangs_holds_up_few_calls(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due costs callers who block a tenth of their time at most."""
    with blocking("core", valkey.url) as layer:
        memberships, now = layer._memberships, [1000.0]
        monkeypatch.setattr(f"{MEMBERSHIPS}.time.monotonic", lambda: now[0])
        with memberships.joining("room", "name"):
            pass
        memberships.end("name")

        async def hang(requests: Any) -> list[Any]:
            now[0] += 1.25
            return [errors.TimeoutError() for _ in requests]

        _tend(memberships, hang)
        now[0] += 12.4
        assert not memberships.refreshes_due
        now[0] += 0.2
        assert memberships.refreshes_due
        monkeypatch.undo()


def test_a_healer_that_blocks_keeps_the_lock_from_nobody(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is discarded while it writes stays gone."""
    with blocking("core", server.url) as layer:
        name = layer.sync.new_channel()
        layer.sync.group_add("room", name)
        server.restart(empty=True)
        write = BlockingConnection.write

        def discard() -> None:
            with layer._memberships.leaving("room", name):
                server.client().zrem(ROOM, name)

        def discard_before(connection: Any, commands: Any, deadline: float) -> None:
            if any(command[0] == b"EVAL" for command in commands):  # it is put back
                thread = threading.Thread(target=discard, daemon=True)
                thread.start()
                thread.join(5)
                assert not thread.is_alive()
            write(connection, commands, deadline)

        monkeypatch.setattr(BlockingConnection, "write", discard_before)
        layer.sync.send("worker", {})
        monkeypatch.undo()
        until(
            lambda: layer.sync.group_send("other", {}) or not members(server),
            "the member to go again",
        )
