"""The layer on the primary that Sentinels name, through failovers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from redis import exceptions as errors

from channels_redis_fast.core import RedisChannelLayer
from support.behaviours import BEHAVIOURS, Behaviour, until_it_works
from support.crowds import Crowd, Sender
from support.failovers import goes_on
from support.layers import opened, soon
from support.polling import eventually
from support.sentinels import SentinelSet
from support.servers import Server, free_port, kept

Layers = tuple[RedisChannelLayer, RedisChannelLayer]


@pytest.fixture
async def layers(sentinels: SentinelSet) -> AsyncIterator[Layers]:
    """Two layers on the shared set."""
    async with opened(sentinels.host) as one, opened(sentinels.host) as other:
        yield one, other


@pytest.mark.parametrize("behaviour", BEHAVIOURS.values(), ids=BEHAVIOURS)
async def test_behaves(layers: Layers, behaviour: Behaviour) -> None:
    await behaviour(*layers)


async def test_database_numbers(sentinels: SentinelSet) -> None:
    async with opened({**sentinels.host, "db": 3}) as layer:
        await layer.send("worker", {"n": 1})
        assert kept(sentinels.primary.client(db=3)) == [b"asgiworker"]
        assert await soon(layer, "worker") == {"n": 1}


async def test_no_connection_to_a_sentinel_is_kept(sentinels: SentinelSet) -> None:
    def clients() -> int:
        return sum(
            sentinel.client().info("clients")["connected_clients"]
            for sentinel in sentinels.sentinels
        )

    before = clients()
    async with opened(sentinels.host) as layer:
        await BEHAVIOURS["sends"](layer, layer)
        await eventually(lambda: clients() == before, "the connections to be closed")


# Failovers

Fail = Callable[[SentinelSet], Server]


@pytest.mark.parametrize(
    "fail", [SentinelSet.failover, SentinelSet.switch], ids=["killed", "demoted"]
)
async def test_failover_under_load(
    own_sentinels: SentinelSet, caplog: pytest.LogCaptureFixture, fail: Fail
) -> None:
    async with (
        opened(own_sentinels.host) as layer,
        Crowd(layer, 20) as crowd,
        Sender(layer) as sender,
    ):
        await sender.accepts(50)
        await asyncio.to_thread(fail, own_sentinels)
        await goes_on(crowd, sender, caplog)


# Passwords, and Sentinels that are no help


async def test_passwords(start_server: Callable[..., Server]) -> None:
    """One for the servers and one for the Sentinels."""
    primary = start_server(password="the primary's")
    watched = f"monitor main {primary.host} {primary.port} 1"
    sentinel = start_server(
        sentinel=True,
        password="the sentinel's",
        options={"sentinel": [watched, f'auth-pass main "{primary.password}"']},
    )
    host = {
        "sentinels": [sentinel.address],
        "master_name": "main",
        "password": primary.password,
        "sentinel_kwargs": {"password": sentinel.password},
    }
    async with opened(host) as one, opened(host) as other:
        for behaviour in BEHAVIOURS.values():
            await behaviour(one, other)
    for wrong in ({"sentinel_kwargs": {"password": "no"}}, {"password": "no"}):
        async with opened({**host, **wrong}) as layer:
            with pytest.raises(errors.ConnectionError) as caught:
                await layer.send("worker", {})
            assert "the " not in str(caught.value)


async def test_a_master_that_no_sentinel_knows(
    start_server: Callable[..., Server],
) -> None:
    primary = start_server()
    sentinel = start_server(sentinel=True)
    host = {"sentinels": [sentinel.address], "master_name": "strange"}
    async with opened(host) as layer:
        name = await layer.new_channel()
        waiting = asyncio.create_task(soon(layer, name))
        for call in (
            layer.send("worker", {}),
            layer.group_add("room", name),
            layer.group_send("room", {}),
            layer.flush(),
        ):
            with pytest.raises(errors.ConnectionError, match="'strange'"):
                await call
        sentinel.client().execute_command(
            "SENTINEL", "MONITOR", "strange", primary.host, primary.port, 1
        )
        await until_it_works(layer)
        await layer.send(name, {"n": 1})
        assert await waiting == {"n": 1}


@pytest.mark.parametrize("state", ["gone", "silent"])
async def test_one_dead_sentinel_among_three(
    sentinels: SentinelSet, start_server: Callable[..., Server], state: str
) -> None:
    dead = start_server(sentinel=True)
    if state == "gone":
        dead.kill()
    else:
        dead.pause()
    host = sentinels.host
    host["sentinels"] = [dead.address, *host["sentinels"][:2]]
    loop = asyncio.get_running_loop()
    async with opened(host) as one, opened(host) as other:
        for layer in one, other:  # which find out which one it is
            await layer.send("worker", {})
            assert await soon(layer, "worker") == {}
        began = loop.time()
        await BEHAVIOURS["groups"](one, other)
        assert loop.time() - began < 1 or loop.get_debug()


async def test_no_sentinel_answers() -> None:
    ports = free_port(), free_port()
    host = {"sentinels": [("127.0.0.1", port) for port in ports], "master_name": "main"}
    async with opened(host) as layer:
        with pytest.raises(errors.ConnectionError, match="'main'") as caught:
            await layer.send("worker", {})
        for port in ports:
            assert str(port) in str(caught.value)
