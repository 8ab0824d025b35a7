"""`ping`: whether each server answers, awaited and blocking."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from channels_redis_fast.types import Ping
from support.clusters import Cluster
from support.layers import opened
from support.polling import eventually
from support.programs import UNSHARDED
from support.proxy import Proxy
from support.sentinels import SentinelSet
from support.servers import Server, free_port
from support.syncing import KINDS


async def ping(layer: Any, way: str) -> list[Ping]:
    """What a layer answers, awaited, blocking or by `async_to_sync`."""
    if way == "loop":
        found: list[Ping] = await layer.ping()
    elif way == "sync":
        found = await asyncio.to_thread(layer.sync.ping)
    else:
        found = await asyncio.to_thread(async_to_sync(layer.ping))
    return found


WAYS = pytest.mark.parametrize("way", ["loop", "sync", "async_to_sync"])
EITHER = pytest.mark.parametrize("kind", KINDS)


@EITHER
@WAYS
async def test_a_server_that_answers(kind: str, way: str, guarded: Server) -> None:
    async with opened(guarded.url, kind=kind) as layer:
        (found,) = await ping(layer, way)
        assert found.is_well
        assert found.seconds is not None
        assert 0 < found.seconds < layer.command_timeout
        assert found.host == f"redis://{guarded.host}:{guarded.port}"  # no password


@EITHER
@WAYS
async def test_one_of_three_is_away(kind: str, way: str, valkey: Server) -> None:
    away = f"redis://127.0.0.1:{free_port()}"
    async with opened(valkey.url, away, valkey.url, kind=kind) as layer:
        found = await ping(layer, way)
    assert [one.is_well for one in found] == [True, False, True]
    assert found[1].seconds is None
    assert "refused" in str(found[1].error) or "Connect" in str(found[1].error)


@WAYS
async def test_one_of_two_hangs(way: str, server: Server, valkey: Server) -> None:
    """The other one is answered for, all within about `command_timeout`."""
    async with opened(server.url, valkey.url, command_timeout=0.4) as layer:
        assert all(one.is_well for one in await ping(layer, way))
        os.kill(server.pid, signal.SIGSTOP)
        try:
            found = await ping(layer, way)
        finally:
            os.kill(server.pid, signal.SIGCONT)
    assert [one.is_well for one in found] == [False, True]
    assert "no answer" in str(found[0].error)


@WAYS
async def test_a_wrong_password(way: str, guarded: Server) -> None:
    host = f"redis://:wrong@{guarded.host}:{guarded.port}"
    async with opened(host) as layer:
        (found,) = await ping(layer, way)
    assert not found.is_well
    assert "wrong@" not in found.host + str(found.error)


@WAYS
async def test_a_subscriber(
    way: str, valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    """Down as long as its connection is, though commands go through."""
    proxy = start_proxy(valkey)
    async with opened((proxy.host, proxy.port), kind="pubsub") as layer:
        assert [one.subscriber for one in await ping(layer, way)] == [None]
        name = await layer.new_channel()
        assert [one.subscriber for one in await ping(layer, way)] == [True]
        proxy.refuse()
        valkey.client().client_kill_filter(_type="pubsub")
        (subscriber,) = layer._loops.engine().placement.subscribers.values()
        await eventually(lambda: not subscriber.is_up, "its loss")
        (found,) = await ping(layer, way)
        assert found.error is None
        assert not found.is_well
        proxy.accept()
        await eventually(lambda: subscriber.is_up, "its return")
        assert [one.subscriber for one in await ping(layer, way)] == [True]
        assert name


@EITHER
@WAYS
@pytest.mark.slow
async def test_sentinel(kind: str, way: str, sentinels: SentinelSet) -> None:
    async with opened(sentinels.host, kind=kind) as layer:
        (found,) = await ping(layer, way)
    assert (found.host, found.is_well) == (f"sentinel master {sentinels.name}", True)


@WAYS
@pytest.mark.slow
@pytest.mark.skipif(bool(UNSHARDED), reason=str(UNSHARDED))
async def test_cluster(way: str, cluster: Cluster) -> None:
    """Each node answers for itself, and for the subscriptions there."""
    async with opened(cluster.host, kind="pubsub") as layer:
        name = await layer.new_channel()
        found = await ping(layer, way)
        assert name
    ports = {f"{node.host}:{node.port}" for node in cluster.primaries}
    assert {one.host for one in found} == ports
    assert all(one.is_well for one in found)
    assert sorted(str(one.subscriber) for one in found) == ["None", "None", "True"]


@WAYS
@pytest.mark.slow
async def test_a_cluster_that_is_away(way: str) -> None:
    host = {"cluster": [("127.0.0.1", free_port())]}
    async with opened(host, command_timeout=0.5) as layer:
        (found,) = await ping(layer, way)
    assert not found.is_well
