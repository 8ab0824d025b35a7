"""What who follows a group gets while connections and servers come and go."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest

from channels_redis_fast.wire.positions import Position
from support.following import GROUP, HISTORY, Follower, append, insist, place, send
from support.layers import opened, soon
from support.polling import eventually
from support.proxy import Proxy
from support.servers import Server
from support.syncing import KINDS

# More than are sent, at this pace, while who was killed often waits to connect.
LONG = {"room-*": (10_000, 300)}
PAUSE = 0.002  # seconds

both = pytest.mark.parametrize("kind", KINDS)


async def kill_some(server: Server, kills: int, busy: Any) -> None:
    """Kills so many connections to a server, while messages flow, but the sender's."""
    client = server.client()
    while kills:
        others = [
            one["id"]
            for one in client.client_list()
            if one["name"] != "sender" and int(one["id"]) != client.client_id()
        ]
        if others:
            kills -= client.client_kill_filter(_id=random.choice(others))
        sent = len(busy)
        await eventually(lambda sent=sent: len(busy) > sent, "more messages")


async def position_of(layer: Any) -> Position:
    """Where the group is, as soon as a connection is there."""
    return place(await insist(lambda: layer.group_position(GROUP)))


async def follow(kind: str, server: Server, kills: int) -> None:
    """Kills connections of followers, and sees that these miss nothing."""
    sender_host = {"address": server.url, "client_name": "sender"}
    async with AsyncExitStack() as stack:
        sender = await stack.enter_async_context(
            opened(sender_host, kind=kind, history=LONG)
        )
        layers = [
            await stack.enter_async_context(
                opened(server.url, kind=kind, history=LONG, capacity=500)
            )
            for _ in range(3)
        ]
        followers = [await Follower.join(layer) for layer in layers for _ in range(3)]
        sent: list[int] = []

        async def load() -> None:  # cut short it would leave a message unsent
            while not killing.done():
                await send(sender, len(sent))
                sent.append(len(sent))
                await asyncio.sleep(PAUSE)

        killing = asyncio.create_task(kill_some(server, kills, sent))
        await load()
        await killing
        last = await position_of(sender)
        await eventually(
            lambda: all(one.reached(last) for one in followers), "all to have all"
        )
        for one in followers:
            assert not one.gaps
            await one.end()


@both
async def test_killed_connections_lose_nothing(kind: str, server: Server) -> None:
    await follow(kind, server, 20)


@pytest.mark.slow
@pytest.mark.timeout(600)
@both
async def test_hundreds_of_killed_connections_lose_nothing(
    kind: str, server: Server
) -> None:
    await follow(kind, server, 500)


@both
async def test_a_restart_is_a_gap(kind: str, server: Server) -> None:
    async with opened(server.url, kind=kind, history=HISTORY) as layer:
        follower = await Follower.join(layer)
        await send(layer, 1)
        await eventually(lambda: follower.numbers == [1], "a message")
        server.restart(empty=False)
        await insist(lambda: layer.group_send(GROUP, {"type": "said", "n": 2}))
        await eventually(lambda: follower.numbers[-1:] == [2], "the message")
        assert len(follower.gaps) == 1
        await follower.end()


async def cut_off(kind: str, server: Server, kept: int) -> Follower:
    """What a follower has after it was cut off, and 40 messages were sent."""
    rules = {"room-*": (kept, 300)}
    with Proxy(server) as proxy:
        async with (
            opened(proxy.url, kind=kind, history=rules) as layer,
            opened(server.url, kind=kind, history=rules) as sender,
        ):
            follower = await Follower.join(layer)
            await send(sender, 0)
            await eventually(lambda: follower.numbers == [0], "a message")
            proxy.refuse()
            proxy.cut()
            await send(sender, *range(1, 40))
            proxy.accept()
            last = await position_of(sender)
            await eventually(lambda: follower.reached(last), "all to be told")
            await send(sender, 40)
            await eventually(lambda: follower.numbers[-1] == 40, "the next")
            await follower.end()
            return follower


@both
async def test_an_outage_loses_nothing_that_is_kept(kind: str, server: Server) -> None:
    follower = await cut_off(kind, server, 100)
    assert not follower.gaps
    assert follower.numbers == [*range(41)]


async def test_what_is_more_than_is_kept_is_a_gap(server: Server) -> None:
    follower = await cut_off("pubsub", server, 10)
    assert len(follower.gaps) == 1
    assert follower.numbers == [0, 40]


@both
async def test_a_sender_that_dies_between_its_trips(kind: str, server: Server) -> None:
    """What was appended and never sent comes with the next message."""
    async with opened(server.url, kind=kind, history=HISTORY) as layer:
        follower = await Follower.join(layer)
        await append(layer, 1)
        await send(layer, 2)
        await eventually(lambda: follower.numbers == [1, 2], "both")
        assert not follower.gaps
        await follower.end()


@both
async def test_the_last_message_is_asked_for(
    kind: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels_redis_fast.runtime.replays._ASK_EVERY", 0.2)
    async with opened(server.url, kind=kind, history=HISTORY) as layer:
        follower = await Follower.join(layer)
        await append(layer, 1)
        await eventually(lambda: follower.numbers == [1], "the message")
        await follower.end()


async def test_on_reconnect_comes_after_what_was_missed(server: Server) -> None:
    with Proxy(server) as proxy:
        async with (
            opened(
                proxy.url, kind="pubsub", history=HISTORY, on_reconnect="back.again"
            ) as layer,
            opened(server.url, kind="pubsub", history=HISTORY) as sender,
        ):
            name = await layer.new_channel()
            await layer.group_join(GROUP, name)
            proxy.refuse()
            proxy.cut()
            await send(sender, 1, 2)
            proxy.accept()
            got = [await soon(layer, name) for _ in range(3)]
            assert [one.get("n", one["type"]) for one in got] == [1, 2, "back.again"]


async def test_many_that_come_back_ask_redis_once(server: Server) -> None:
    async with opened(server.url, history=HISTORY) as layer:
        await send(layer, *range(5))
        names = [await layer.new_channel() for _ in range(200)]
        since = (await layer.group_history(GROUP, limit=2)).position
        client = server.client()
        client.config_resetstat()
        joins = (layer.group_join(GROUP, name, since) for name in names)
        for recovery in await asyncio.gather(*joins):
            assert (recovery.recovered, recovery.replayed) == (True, 3)
        calls = client.info("commandstats")["cmdstat_lrange"]["calls"]
        assert calls <= 2
        for name in names:
            assert [(await soon(layer, name))["n"] for _ in range(3)] == [2, 3, 4]
