"""What thousands of calls cost an event loop when Redis is silent, or refuses them."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import Any

import pytest
from layers import opened, unconfirmed
from redis import exceptions as errors
from servers import Server
from syncing import KINDS

from channels_redis_fast import _connection
from channels_redis_fast._outbox import _MOST
from channels_redis_fast._scripts import key_of
from channels_redis_fast.client.backlog import Call
from channels_redis_fast.client.opening import open_connection

COUNT = 400
# How often each may be looked at: not once for each of the others.
FEW = 10


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a call that waits, or one that was refused, was looked at."""
    found: Counter[str] = Counter()
    done = Call.done

    def look_at_call(call: Call) -> bool:
        found["waiting"] += 1
        return done(call)

    def look_at_command(command: Any) -> Any:
        found["refused"] += 1
        return key_of(command)

    monkeypatch.setattr(Call, "done", look_at_call)
    monkeypatch.setattr(_connection, "key_of", look_at_command)
    return found


async def test_silence(server: Server, looks: Counter[str]) -> None:
    async with opened(server.url, command_timeout=0.5) as layer:
        server.pause()
        sends = [layer.send(f"jobs{n}", {}) for n in range(COUNT)]
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        server.resume()
        assert {type(one) for one in outcomes} == {errors.ConnectionError}
        assert 0 < looks["waiting"] < FEW * COUNT


async def test_a_server_that_changes_its_mind(
    valkey: Server, looks: Counter[str]
) -> None:
    """It refuses half of what was written together."""
    layer = KINDS["core"](hosts=[valkey.url])
    pipe = await open_connection(layer._hosts[0], deadline=5.0)
    futures = []
    for text in b"return redis.error_reply('BUSY a script')", b"return 1":
        for n in range(COUNT):
            future = asyncio.get_running_loop().create_future()
            pipe.submit(future, (b"EVAL", text, b"1", b"key%d" % n))
            futures.append(future)
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(one) for one in outcomes[:COUNT]} == {errors.ResponseError}
    assert outcomes[COUNT:] == [1] * COUNT
    assert 0 < looks["refused"] < FEW * COUNT
    await pipe.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_who_waits_for_room(kind: str, server: Server) -> None:
    """`command_timeout` is for all of them, not for each thousand."""
    async with unconfirmed(kind, server.url, command_timeout=0.5) as layer:
        await layer.send("jobs", {})
        await layer.flush_sends()
        (shard,) = layer._loops.here().shards
        (lane,) = layer._loops.here().outbox._lanes
        server.pause()
        sends = [asyncio.ensure_future(layer.send("jobs", {})) for _ in range(_MOST)]
        await asyncio.gather(*sends)
        shard._main.connection.heard = math.inf  # so that it isn't given up
        with pytest.raises(errors.ConnectionError, match="no room"):
            await asyncio.wait_for(layer.send("jobs", {}), 10)
        assert lane._load == _MOST
        server.resume()
