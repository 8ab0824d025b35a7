"""The peers of the tests do what they are told, and are always reaped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from support.peers import (
    INCUMBENT_CORE,
    INCUMBENT_PUBSUB,
    Peer,
    PeerError,
    incumbent_hosts,
)
from support.polling import eventually
from support.servers import Server

pytestmark = pytest.mark.slow

StartPeer = Callable[..., Any]


@pytest.fixture(params=[INCUMBENT_CORE, INCUMBENT_PUBSUB], ids=["core", "pubsub"])
async def pair(
    request: pytest.FixtureRequest, valkey: Server, start_peer: StartPeer
) -> tuple[Peer, Peer]:
    """Two processes with a layer of the incumbent."""
    config = {"hosts": incumbent_hosts(valkey.url)}
    one, other = (start_peer(request.param, config) for _ in range(2))
    return tuple(await asyncio.gather(one, other))


async def test_messages_and_groups(pair: tuple[Peer, Peer]) -> None:
    one, other = pair
    channel = await one.new_channel()
    await other.send(channel, {"type": "a", "bytes": b"\xff", "n": [1, None]})
    message = await one.receive(channel, timeout=5)
    assert message == {"type": "a", "bytes": b"\xff", "n": [1, None]}
    await one.group_add("group", channel)
    collected = one.begin("collect", channel, 40, timeout=10)
    # The incumbent returns from group_add before the subscription stands.
    sent = await other.burst("group", 20, group=True, start=20, pause=0.005)
    assert sent["failed"] == {}
    sent = await other.burst(channel, 20, senders=3, patient=True, sender="b")
    assert sent["accepted"] == list(range(20))
    received = (await collected)["received"]
    assert sorted(number for _, number in received) == list(range(40))
    assert {sender for sender, number in received if number < 20} == {"b"}


async def test_an_idle_incumbent_survives(
    valkey: Server, start_peer: StartPeer
) -> None:
    async def idle(path: str) -> None:
        peer = await start_peer(path, {"hosts": incumbent_hosts(valkey.url)})
        channel = await peer.new_channel()
        waiting = peer.begin("receive", channel)
        # redis-py 8 gives up after 5 s if it isn't told otherwise.
        await asyncio.wait({waiting}, timeout=5.5)
        await peer.send(channel, {"type": "late"})
        assert await asyncio.wait_for(waiting, 5) == {"type": "late"}

    await asyncio.gather(idle(INCUMBENT_CORE), idle(INCUMBENT_PUBSUB))


async def test_cancel_and_errors(valkey: Server, start_peer: StartPeer) -> None:
    peer = await start_peer(INCUMBENT_CORE, {"hosts": incumbent_hosts(valkey.url)})
    channel = await peer.new_channel()
    waiting = peer.begin("receive", channel)
    assert await peer.cancel(waiting)
    assert waiting.cancelled()
    with pytest.raises(PeerError, match="Channel name") as caught:
        await peer.send("bad name", {})
    assert "TypeError" in caught.value.kinds
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(peer.receive(channel), 0.05)
    quick = await peer.collect(channel, timeout=0.2, impatience=0.01)
    assert quick["received"] == []
    assert quick["cancelled"] > 5


async def test_kill(valkey: Server, start_peer: StartPeer) -> None:
    peer = await start_peer(INCUMBENT_CORE, {"hosts": incumbent_hosts(valkey.url)})
    waiting = peer.begin("receive", await peer.new_channel())
    peer.pause()
    process = psutil.Process(peer.pid)
    await eventually(lambda: process.status() == psutil.STATUS_STOPPED, "the stop")
    peer.kill()
    with pytest.raises(PeerError, match="ended"):
        await waiting


async def test_a_layer_that_cannot_be_built() -> None:
    with pytest.raises(PeerError, match="No module named 'nowhere'"):
        await Peer("nowhere.Layer", {}).start()
