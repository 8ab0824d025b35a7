"""What Redis does for messages of groups with a history: by whom, and in what order."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.runtime import appends
from channels_redis_fast.types import position_of
from support.following import GROUP, HISTORY, RULES, numbers, place, said, send
from support.layers import FORMATS, opened, soon
from support.servers import Server
from support.syncing import KINDS

both = pytest.mark.parametrize("kind", KINDS)


def calls(server: Server, command: str) -> int:
    """How often the server ran a command."""
    stats = server.client().info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def key_of(server: Server, what: str) -> bytes:
    """The key of the one group."""
    (key,) = server.client().keys(f"asgi:{what}:*")
    return bytes(key)


@both
async def test_what_is_sent_in_one_turn_is_one_command(
    valkey: Server, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appends, "_TOGETHER", 60.0)  # however slow a machine is
    async with opened(valkey.url, kind=kind, history=HISTORY, capacity=2000) as layer:
        name = await layer.new_channel()
        await layer.group_join(GROUP, name)
        await send(layer, 0)
        assert await numbers(layer, name, 1) == [0]
        before = calls(valkey, "rpush")
        sends = [layer.group_send(GROUP, said(n)) for n in range(1, 602)]
        sending = asyncio.gather(*sends)
        gone = asyncio.ensure_future(layer.group_send(GROUP, said(602)))
        await asyncio.sleep(0)
        gone.cancel()  # it is on its way, and no other one's business
        results = await sending
        assert calls(valkey, "rpush") - before == 2  # no more than 500 in one
        assert {result.processes for result in results} == {1}
        got = [await soon(layer, name) for _ in range(601)]
        assert [message["n"] for message in got] == [*range(1, 602)]
        offsets = [place(position_of(message) or "")[1] for message in got]
        assert offsets == [*range(2, 603)]


@both
async def test_an_error_is_told_to_each(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=HISTORY) as layer:
        await send(layer, 0)
        key = key_of(valkey, "position")
        valkey.client().delete(key)
        valkey.client().hset(key.decode(), "no", "string")
        outcomes = await asyncio.gather(
            *(layer.group_send(GROUP, said(n)) for n in range(3)),
            return_exceptions=True,
        )
        assert all(isinstance(one, errors.ResponseError) for one in outcomes)
        assert len({id(one) for one in outcomes}) == 3


@both
@pytest.mark.parametrize("format", ["msgpack", "json", "aes-gcm"])
async def test_an_epoch_is_later_than_what_is_kept(
    valkey: Server, kind: str, format: str
) -> None:
    """Also when the position was evicted and the clock was set back."""
    options: dict[str, Any] = FORMATS[format]
    async with opened(valkey.url, kind=kind, history=RULES, **options) as layer:
        await send(layer, 0)
        key, client = key_of(valkey, "position"), valkey.client()
        later = 5_000_000_000_000
        client.setrange(key, 8, str(later))
        await send(layer, 1)
        client.delete(key)
        await send(layer, 2)
        epoch, offset = place(await layer.group_position(GROUP))
        assert (epoch, offset) == (later + 1, 1)
        page = await layer.group_history(GROUP)
        assert [message["n"] for message in page.messages] == [2]


async def ended(but_for: asyncio.Task[Any] | None = None) -> None:
    """Cancels all tasks of the loop, as `asyncio.run` does at its end."""
    others = asyncio.all_tasks() - {asyncio.current_task(), but_for}
    for task in others:
        task.cancel()
    await asyncio.wait_for(asyncio.wait(others), 10)


@both
async def test_a_call_after_all_tasks_were_cancelled(valkey: Server, kind: str) -> None:
    """Also the last call of one that was cancelled, before its message was written."""
    async with opened(valkey.url, kind=kind, history=HISTORY) as layer:
        await send(layer, 0)

        async def leave() -> None:
            try:
                await layer.group_send(GROUP, said(1))
            finally:
                await layer.group_send(GROUP, said(2))

        leaving = asyncio.create_task(leave())
        await asyncio.sleep(0)
        await ended()
        assert leaving.cancelled()
        await asyncio.wait_for(layer.group_send(GROUP, said(3)), 10)
        page = await layer.group_history(GROUP)
        assert [message["n"] for message in page.messages] == [0, 2, 3]


@both
@pytest.mark.parametrize("turns", [1, 2], ids=["unwritten", "written"])
async def test_who_was_not_cancelled_gets_an_error(
    valkey: Server, kind: str, turns: int
) -> None:
    async with opened(valkey.url, kind=kind, history=HISTORY) as layer:
        await send(layer, 0)
        sending = asyncio.create_task(layer.group_send(GROUP, said(1)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await ended(but_for=sending)
        with pytest.raises(errors.ConnectionError, match="cancelled"):
            await asyncio.wait_for(sending, 10)


@contextmanager
def paused(server: Server) -> Iterator[None]:
    """The server answers nothing that may write."""
    client = server.client()
    client.client_pause(30_000, all=False)
    try:
        yield
    finally:
        client.client_unpause()


async def test_each_call_has_its_own_deadline(valkey: Server) -> None:
    """One that waited for something else first takes no time from those beside it."""
    async with opened(valkey.url, history=HISTORY, command_timeout=20) as layer:
        await send(layer, 0)
        engine, history = layer._loops.engine(), layer._history

        def append(number: int, began: float) -> Any:
            body = layer._body_but_for(said(number), [])
            return engine.append(history.append(GROUP, body), b"", began)

        with paused(valkey):
            now = monotonic()
            appends = append(1, now - 19.9), append(2, now)
            assert isinstance((await appends[0]).reply, errors.ConnectionError)
            assert not appends[1].done()
        assert isinstance((await appends[1]).reply, list)


if sys.version_info >= (3, 12):

    @both
    async def test_eager_tasks(valkey: Server, kind: str) -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        try:
            async with opened(valkey.url, kind=kind, history=HISTORY) as layer:
                sends = [layer.group_send(GROUP, said(n)) for n in range(3)]
                await asyncio.wait_for(asyncio.gather(*sends), 10)
                page = await layer.group_history(GROUP)
                assert [message["n"] for message in page.messages] == [0, 1, 2]
        finally:
            loop.set_task_factory(None)


@both
async def test_without_memory_nothing_is_kept(valkey: Server, kind: str) -> None:
    """Also of a group that has no position yet; but what is kept can be dropped."""
    client = valkey.client()
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        await send(layer, 0)
        client.config_set("maxmemory", 1)
        try:
            for group in (GROUP, "room-new"):
                with pytest.raises(errors.OutOfMemoryError):
                    await layer.group_send(group, said(1))
            assert len((await layer.group_history(GROUP)).messages) == 1
            await layer.group_forget(GROUP)
        finally:
            client.config_set("maxmemory", 0)
        assert (await layer.group_history(GROUP)).messages == []
