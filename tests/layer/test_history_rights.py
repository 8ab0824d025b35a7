"""Groups with a history, for a user with few rights, and in threads and children."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis.exceptions import RedisError

from channels_redis_fast.commands.history import append_alone
from channels_redis_fast.types import position_of
from support.following import GROUP, HISTORY, place, said, send
from support.forking import in_child, needs_fork
from support.layers import opened, soon
from support.paths import DOCS
from support.servers import Server
from support.syncing import KINDS, blocking

both = pytest.mark.parametrize("kind", KINDS)
TEXT = (DOCS / "hosts.md").read_text()
RIGHTS = ["+get", "+set", "+rpush", "+ltrim", "+lrange", "+lindex", "+unlink"]
PUBSUB = "&* +subscribe +unsubscribe +publish"


@pytest.fixture
def limited(any_server: Server) -> Iterator[Server]:
    """A server with a user who may do what the page lists."""
    block = re.search(r"\n\n((?:    \+.*\n)+)\n", TEXT)
    assert block is not None
    assert f"`{' '.join(RIGHTS)}`" in TEXT
    rules = ["on", ">secret", "~asgi*", *block[1].split(), *RIGHTS, *PUBSUB.split()]
    any_server.client().execute_command("ACL", "SETUSER", "limited", *rules)
    yield any_server
    any_server.client().acl_deluser("limited")
    any_server.flush()  # another test may know it by another name


@both
async def test_with_few_rights(limited: Server, kind: str) -> None:
    url = limited.url.replace("redis://", "redis://limited:secret@")
    async with opened(url, kind=kind, history=HISTORY) as layer:
        name = await layer.new_channel()
        await layer.group_join(GROUP, name)
        await send(layer, 1)
        assert (await soon(layer, name))["n"] == 1
        await layer.group_forget(GROUP)
        assert (await layer.group_history(GROUP)).messages == []


async def use(layer: Any) -> None:
    await layer.group_send(GROUP, said(1))
    await layer.group_history(GROUP)


async def test_each_right_is_needed(limited: Server) -> None:
    url = limited.url.replace("redis://", "redis://limited:secret@")
    client = limited.client()
    async with opened(url, history=HISTORY) as layer:
        for right in RIGHTS:
            client.execute_command("ACL", "SETUSER", "limited", f"-{right[1:]}")
            client.delete(*client.keys("asgi:*") or ["asgi"])
            with pytest.raises(RedisError, match=r"NOPERM|ermission|ACL|can.t run"):
                await use(layer)
            client.execute_command("ACL", "SETUSER", "limited", right)


async def test_without_info(limited: Server) -> None:
    """Everything works; another server process isn't told from the one before."""
    client = limited.client()
    client.execute_command("ACL", "SETUSER", "limited", "-info")
    url = limited.url.replace("redis://", "redis://limited:secret@")
    async with opened(url, history=HISTORY) as layer:
        await send(layer, 1)
        await asyncio.sleep(0.02)  # so that it would be asked
        await send(layer, 2)
        assert place(await layer.group_position(GROUP))[1] == 2
    (key,) = client.keys("asgi:position:*")
    assert client.get(key).startswith(b"00000000")


def test_a_thread_without_a_loop_fills_holes(valkey: Server) -> None:
    with blocking("core", valkey.url, history=HISTORY) as layer:
        name = layer.sync.new_channel()
        layer.sync.group_join(GROUP, name)
        layer.sync.group_send(GROUP, said(1))
        append = layer._history.append(GROUP, layer._codec.body(said(2)))
        index, command = append_alone(append)
        layer._blocking.run(index, command, time.monotonic() + 5)
        layer.sync.group_send(GROUP, said(3))
        got = [layer.sync.receive(name, timeout=5)["n"] for _ in range(3)]
        assert got == [1, 2, 3]


def test_a_thread_without_a_loop_asks_for_what_nothing_tells(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels_redis_fast.runtime.replays._ASK_EVERY", 0.2)
    with blocking("core", valkey.url, history=HISTORY) as layer:
        name = layer.sync.new_channel()
        layer.sync.group_join(GROUP, name)
        append = layer._history.append(GROUP, layer._codec.body(said(1)))
        index, command = append_alone(append)
        layer._blocking.run(index, command, time.monotonic() + 5)
        assert layer.sync.receive(name, timeout=10)["n"] == 1
        layer.sync.group_forget(GROUP)
        assert layer.sync.receive(name, timeout=10)["type"] == "group.gap"


def test_a_long_replay_in_a_thread(valkey: Server) -> None:
    with blocking("core", valkey.url, history=HISTORY, capacity=5) as layer:
        name = layer.sync.new_channel()
        since = layer.sync.group_position(GROUP)
        for n in range(20):
            layer.sync.group_send(GROUP, said(n))
        assert layer.sync.group_join(GROUP, name, since).replayed == 20
        got = [layer.sync.receive(name, timeout=5) for _ in range(20)]
        assert [message["n"] for message in got] == [*range(20)]
        assert position_of(got[-1]) == layer.sync.group_position(GROUP)


@needs_fork
def test_a_child_follows_by_itself(valkey: Server) -> None:
    with blocking("core", valkey.url, history=HISTORY) as layer:
        name = layer.sync.new_channel()
        layer.sync.group_join(GROUP, name)
        layer.sync.group_send(GROUP, said(1))

        async def follow() -> bytes:
            assert not layer._replays._groups
            own, since = await layer.new_channel(), await layer.group_position(GROUP)
            assert (await layer.group_join(GROUP, own, since)).recovered
            await send(layer, 2)
            found = await soon(layer, own)
            await layer.close_pools()
            return str(found["n"]).encode()

        assert in_child(lambda: asyncio.run(follow())) == b"2"
        got = [layer.sync.receive(name, timeout=5)["n"] for _ in range(2)]
        assert got == [1, 2]
