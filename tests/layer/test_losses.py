"""Members come back that others took out, or that a connected server lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from support.layers import opened
from support.pretending import (
    INFOS,
    ROOM,
    age,
    beat,
    member,
    members,
    pretend,
    server_time,
)
from support.servers import Server


async def test_who_was_taken_for_dead_joins_again(
    valkey: Server, caplog: pytest.LogCaptureFixture
) -> None:
    client = valkey.client()
    async with opened(valkey.url) as layer:
        name, other = await member(layer), await member(layer)
        await beat(layer)
        pretend(client, 1)
        age(client, layer.client_prefix, 61)
        client.zrem(ROOM, name)
        client.zadd(ROOM, {other: 1}, xx=True)  # about to be taken out by a third one
        await beat(layer)
        assert members(client) == {name, other}
        assert client.zscore(ROOM, other) > server_time(client) - 10
        assert "took this process for dead" in caplog.text


async def test_data_lost_while_connected(
    valkey: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """All join again, also where others joined since."""
    client = valkey.client()
    async with opened(valkey.url) as layer:
        old = await member(layer)
        await beat(layer)
        client.flushdb()
        new = await member(layer)
        await beat(layer)
        assert members(client) == {old, new}
        await beat(layer)
    assert caplog.text.count("lost data while it was connected") == 1
    assert "FLUSHDB" in caplog.text


async def test_what_was_lost_is_restored_when_that_failed(valkey: Server) -> None:
    client = valkey.client()
    async with opened(valkey.url, command_timeout=0.2) as layer:
        name = await member(layer)
        await beat(layer)
        client.flushdb()
        run_all, asked = layer._engine().run_all, 0

        async def fail(requests: Any, began: float = 0.0) -> Any:
            nonlocal asked
            asked += 1
            if asked > 1:
                raise redis.ConnectionError("lost")
            return await run_all(requests, began)

        layer._engine().run_all = fail
        await beat(layer)
        assert not members(client)
        layer._engine().run_all = run_all
        await beat(layer)
        assert members(client) == {name}


async def test_what_was_flushed_stays_gone(valkey: Server) -> None:
    client = valkey.client()
    async with opened(valkey.url) as layer, opened(valkey.url) as other:
        await member(layer)
        await beat(layer)
        await beat(other)
        await other.flush()
        await beat(layer)
        assert not members(client)
        assert not await layer.group_count("room")
        assert len(await layer.processes()) == 2


async def test_one_of_several_hosts_loses_its_data(
    valkey: Server, redis62: Server
) -> None:
    async with opened(valkey.url, redis62.url) as layer:
        name = await layer.new_channel()
        groups = [f"group{i}" for i in range(20)]
        for group in groups:
            await layer.group_add(group, name)
        for server in valkey, redis62:
            await beat(layer)
            server.client().flushdb()
            await beat(layer)
            assert [await layer.group_count(group) for group in groups] == [1] * 20


async def test_evicted_groups_come_back(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """But not who was discarded, as far as that can be told."""
    client = server.client()
    async with opened(server.url) as layer, opened(server.url) as other:
        kept, discarded = await member(layer), await member(layer)
        lost = await member(layer, "evicted")
        await beat(layer)
        client.config_set("maxmemory-policy", "volatile-ttl")
        client.set("short", "x" * 100_000, ex=5)
        used = client.info("memory")["used_memory"]
        client.config_set("maxmemory", used - 50_000)
        client.config_set("maxmemory", 0)
        await other.group_discard("room", discarded)
        await other.group_discard("evicted", lost)  # as if that had been evicted
        if not client.info("stats")["evicted_keys"]:
            pytest.fail("nothing was evicted")
        await beat(layer)
        assert members(client) == {kept}
        assert members(client, "evicted") == {lost}
        assert "evicts keys" in caplog.text


async def two_hosts_of_groups(layer: Any) -> list[str]:
    """Groups on both, which have a member."""
    groups = [f"group{i}" for i in range(20)]
    name = await layer.new_channel()
    for group in groups:
        await layer.group_add(group, name)
    assert {layer.consistent_hash(group) for group in groups} == {0, 1}
    return groups


@pytest.mark.parametrize("kept", [0, 1])
async def test_a_host_that_is_away_keeps_no_other_waiting(
    server: Server, valkey: Server, kept: int
) -> None:
    hosts = [server.url, valkey.url][:: -1 if kept == 0 else 1]
    async with opened(*hosts, command_timeout=0.5) as layer:
        groups = await two_hosts_of_groups(layer)
        await beat(layer)
        valkey.client().flushdb()
        server.kill()
        await beat(layer)
        there = [group for group in groups if layer.consistent_hash(group) == kept]
        assert all(members(valkey.client(), group) for group in there)


async def test_a_host_that_hangs_keeps_no_others_groups_uncounted(
    server: Server, valkey: Server
) -> None:
    """Nor before it is known who is silent, which another one says."""
    async with opened(server.url, valkey.url, command_timeout=60) as layer:
        there = layer.consistent_hash("processes")
        assert there == 1
        groups = await two_hosts_of_groups(layer)
        group = next(one for one in groups if layer.consistent_hash(one) == there)
        assert not layer._heartbeat.is_known
        server.pause()
        try:
            assert await asyncio.wait_for(layer.group_count(group), 10) == 1
            assert len(await layer.group_members(group)) == 1
            assert len(await layer.processes()) == 1
        finally:
            server.resume()


async def test_an_info_that_is_refused_keeps_nothing_waiting(valkey: Server) -> None:
    client = valkey.client()
    async with opened(valkey.url) as layer:
        name = await member(layer)
        await beat(layer)
        client.flushdb()
        client.set(INFOS, "mine")
        await beat(layer)
        assert members(client) == {name}


async def test_who_was_cut_off_joins_again_on_all_hosts(
    valkey: Server, redis62: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """By what is said at the one with all heartbeats the others took him for dead."""
    clients = valkey.client(), redis62.client()
    async with opened(valkey.url, redis62.url) as layer:
        groups = await two_hosts_of_groups(layer)
        home = clients[layer.consistent_hash("processes")]
        await beat(layer)
        pretend(home, 1)
        age(home, layer.client_prefix, 61)
        for client in clients:
            client.delete(*client.keys("asgi:group:*"))
        await beat(layer)
        assert [await layer.group_count(group) for group in groups] == [1] * 20
    assert caplog.text.count("took this process for dead") == 2
    assert "lost data" not in caplog.text


async def test_a_beat_that_is_answered_after_the_end(
    valkey: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """What the process took away itself is no loss."""
    async with opened(valkey.url) as layer:
        await beat(layer)
        engine = layer._engine()
        beating = asyncio.create_task(layer._heartbeat.beat(engine))
        await asyncio.sleep(0)  # it is written
        await layer._heartbeat._leave(engine)
        await beating
        layer._heartbeat.attach(engine)  # another event loop begins
        await member(layer)
        await beat(layer)
    assert "lost data" not in caplog.text
