"""Calls that go on while the connections of their loop are closed."""

from __future__ import annotations

import asyncio

import pytest
from redis import exceptions as errors

from channels_redis_fast.runtime.engine import LoopEngine
from support.clusters import Cluster
from support.layers import opened, soon
from support.polling import eventually
from support.refusing import RefusingProxy
from support.servers import Server
from support.syncing import KINDS


async def test_nothing_is_opened_that_nobody_would_close(cluster: Cluster) -> None:
    """A call whose next step goes to nodes that it has no connection to yet."""
    async with opened(cluster.host) as layer:
        await layer.group_add("room", "jobs")
        runner = layer._loops.engine()
        (shard,) = runner.shards
        requests = [layer._operations.members(f"room{n}") for n in range(20)]
        await layer.close_pools()
        outcomes = await runner.run_all(requests)
        assert {type(one) for one in outcomes} == {errors.ConnectionError}
        await shard.look_up()
        with pytest.raises(errors.ConnectionError):
            await shard.unlink(b"nothing*")
        assert not any(link.connection for link in shard._nodes.values())


async def test_who_was_refused_hears_of_it_at_once(valkey: Server) -> None:
    """Also where the connection waits for other answers before it is tried again."""
    with RefusingProxy(valkey) as proxy:
        async with opened(proxy.url, command_timeout=30) as layer:
            await layer.group_discard("room", "jobs")  # the connection is there
            (shard,) = layer._loops.engine().shards
            connection = shard._main.connection
            assert connection is not None
            with proxy.refusing("READONLY a replica"):
                sending = asyncio.create_task(layer.send("jobs", {}))
                await asyncio.sleep(0)
                connection.call((b"BLPOP", b"nothing", b"0")).cancel()
                await eventually(lambda: connection.paused, "the refusal")
                await layer.close_pools()
                with pytest.raises(errors.ConnectionError, match="closed"):
                    await asyncio.wait_for(sending, 10)


async def test_a_call_after_all_tasks_were_cancelled(valkey: Server) -> None:
    """As by `asyncio.run` at its end, before a layer puts its own work in order."""
    async with opened(valkey.url, command_timeout=30) as layer:
        sending = asyncio.create_task(layer.send("worker", {"n": 1}))
        await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(others) == 2  # that, and the one that connects
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        assert sending.cancelled()
        await asyncio.wait_for(layer.send("worker", {"n": 2}), 10)
        assert await soon(layer, "worker") == {"n": 2}


@pytest.mark.parametrize("option", ["expiry", "group_expiry"])
@pytest.mark.parametrize("kind", KINDS)
async def test_expiries_shorter_than_a_round_trip(
    valkey: Server, kind: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their refreshes are due again and again; loops turn, and end."""
    ticks: list[LoopEngine] = []
    monkeypatch.setattr(LoopEngine, "_sweep", lambda self: ticks.append(self))
    layer = KINDS[kind](hosts=[valkey.url], **{option: 1e-6})
    await layer.group_add("room", await layer.new_channel())
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(ticks) < 50
    await asyncio.wait_for(layer.close_pools(), 10)
