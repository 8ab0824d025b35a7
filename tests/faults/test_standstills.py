"""Who is counted and sent to while processes, event loops or Redis stand still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.core import RedisChannelLayer
from support.clusters import Cluster
from support.layers import opened
from support.peers import CORE, INCUMBENT_CORE, Peer, Request, incumbent_hosts
from support.pretending import ALIVE, member, members
from support.sentinels import SentinelSet
from support.servers import Server, kept

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

StartPeer = Callable[..., Any]


async def joined(peer: Peer) -> Request:
    """A member of the room in another process: the next message that it gets.

    A channel lives as long as somebody waits on it.
    """
    name = await peer.new_channel()
    await peer.group_add("room", name)
    receiving = peer.begin("receive", name)
    receiving.add_done_callback(lambda one: one.cancelled() or one.exception())
    return receiving


async def counted(layer: RedisChannelLayer, count: int, *, within: float) -> float:
    """Returns when so many are counted, and how long that took (seconds)."""
    began = time.monotonic()
    while await layer.group_count("room") != count:
        assert time.monotonic() < began + within
        await asyncio.sleep(0.1)
    return time.monotonic() - began


async def beating(layer: RedisChannelLayer, count: int) -> None:
    """Returns when so many processes have beaten."""
    for _ in range(200):
        if len(await layer.processes()) >= count:
            return
        await asyncio.sleep(0.1)
    pytest.fail("not all have beaten")


async def test_a_killed_process(server: Server, start_peer: StartPeer) -> None:
    """It is not counted after 20 s, and not sent to after 70 s."""
    async with opened(server.url) as layer:
        ours = await member(layer)
        peer = await start_peer(CORE, {"hosts": [server.url]})
        await joined(peer)
        await beating(layer, 2)
        began = time.monotonic()
        peer.kill()
        assert await counted(layer, 1, within=21) > 9
        while members(server.client()) != {ours}:
            assert time.monotonic() < began + 71
            await layer.group_send("room", {"n": 1})
            await asyncio.sleep(0.5)
        assert time.monotonic() > began + 50


@pytest.mark.parametrize("how", ["process", "loop"])
async def test_a_process_that_stands_still_for_a_while(
    server: Server, start_peer: StartPeer, how: str
) -> None:
    """It isn't counted, and loses nothing."""
    async with opened(server.url) as layer:
        peer = await start_peer(CORE, {"hosts": [server.url]})
        receiving = await joined(peer)
        await beating(layer, 2)
        if how == "loop":
            standing = peer.begin("stand_still", 30)
        else:
            peer.pause()
        await counted(layer, 0, within=21)
        await layer.group_send("room", {"n": 1})
        if how == "loop":
            await standing
        else:
            peer.resume()
        await counted(layer, 1, within=11)
        assert await receiving == {"n": 1}


async def test_a_process_that_stands_still_for_long(
    server: Server, start_peer: StartPeer
) -> None:
    """It is taken for dead, and joins again."""
    async with opened(server.url) as layer:
        peer = await start_peer(CORE, {"hosts": [server.url]})
        receiving = await joined(peer)
        await beating(layer, 2)
        peer.pause()
        until = time.monotonic() + 90
        while time.monotonic() < until:
            await layer.group_send("room", {"n": 1})
            await asyncio.sleep(0.5)
        assert not members(server.client())
        server.client().delete(*kept(server.client()))  # what was sent until then
        peer.resume()
        await counted(layer, 1, within=11)
        await peer.logged("took this process for dead")
        await layer.group_send("room", {"n": 2})
        assert await receiving == {"n": 1}  # on its way when it was stopped
        name = (await layer.group_members("room"))[0]
        assert await peer.receive(name, timeout=5) == {"n": 2}


@pytest.mark.parametrize("seconds", [5, 9, 30, 120])
async def test_redis_is_away(
    server: Server, start_peer: StartPeer, seconds: float
) -> None:
    """Nobody is counted out for it; who was killed before is."""
    config = {"hosts": [server.url]}
    async with opened(server.url) as layer:
        name = await member(layer)
        for _ in range(3):
            await joined(await start_peer(CORE, config))
        await beating(layer, 4)
        server.pause()
        await asyncio.sleep(seconds)
        server.resume()
        until = time.monotonic() + 40
        answers = 0
        while time.monotonic() < until:
            await asyncio.sleep(0.05)
            try:
                assert await layer.group_count("room") == 4
                answers += 1
            except errors.RedisError:
                continue
        assert answers > 100
        assert name in await layer.group_members("room")


async def test_members_of_the_incumbent_stay(
    server: Server, start_peer: StartPeer
) -> None:
    """They say nothing, which proves nothing."""
    incumbent = await start_peer(INCUMBENT_CORE, {"hosts": incumbent_hosts(server.url)})
    async with opened(server.url) as layer:
        peer = await start_peer(CORE, {"hosts": [server.url]})
        theirs = await incumbent.new_channel()
        await incumbent.group_add("room", theirs)
        await joined(peer)
        await beating(layer, 2)
        peer.kill()
        until = time.monotonic() + 75
        while time.monotonic() < until:
            await layer.group_send("room", {"n": 1})
            await incumbent.receive(theirs, timeout=5)
            await asyncio.sleep(0.5)
        assert await layer.group_members("room") == [theirs]
        assert members(server.client()) == {theirs}


@pytest.fixture(params=["cluster", "sentinels"])
def failing(request: pytest.FixtureRequest) -> tuple[Any, Callable[[], object]]:
    """A host, and what kills the server that has the heartbeats there."""
    if request.param == "cluster":
        cluster: Cluster = request.getfixturevalue("own_cluster")
        return cluster.host, lambda: cluster.kill_primary_of(ALIVE)
    sentinels: SentinelSet = request.getfixturevalue("own_sentinels")
    return sentinels.host, sentinels.failover


async def test_a_failover(
    failing: tuple[Any, Callable[[], object]], start_peer: StartPeer
) -> None:
    """Nobody is counted out."""
    host, fail = failing
    async with opened(host) as layer:
        name = await member(layer)
        await joined(await start_peer(CORE, {"hosts": [host]}))
        await beating(layer, 2)
        await asyncio.to_thread(fail)
        until, answers = time.monotonic() + 40, 0
        while time.monotonic() < until:
            await asyncio.sleep(0.05)
            try:
                assert await layer.group_count("room") == 2
                answers += 1
            except errors.RedisError:
                continue
        assert answers > 100
        assert name in await layer.group_members("room")
        assert len(await layer.processes()) == 2
