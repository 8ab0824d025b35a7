"""What Redis does for messages of groups with a history: by whom, and in what order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import exceptions as errors

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
    valkey: Server, kind: str
) -> None:
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
