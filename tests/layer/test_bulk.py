"""Many messages at once: few round trips, an outcome for each, each channel's order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from channels.exceptions import ChannelFull
from redis import exceptions as errors

from channels_redis_fast.exceptions import InvalidMessage
from support.clusters import Cluster, slot_of
from support.layers import soon
from support.polling import eventually
from support.programs import UNSHARDED
from support.proxy import Proxy
from support.servers import Server
from support.syncing import KINDS

Pairs = list[tuple[Any, Any]]


async def in_loop(layer: Any, method: str, pairs: Pairs) -> list[Any]:
    """The asynchronous way."""
    outcomes: list[Any] = await getattr(layer, method)(pairs)
    return outcomes


async def in_thread(layer: Any, method: str, pairs: Pairs) -> list[Any]:
    """The blocking way."""
    outcomes: list[Any] = await asyncio.to_thread(getattr(layer.sync, method), pairs)
    return outcomes


Way = Callable[[Any, str, Pairs], Awaitable[list[Any]]]


@pytest.fixture(params=[in_loop, in_thread])
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_outcomes(kind: str, way: Way, valkey: Server) -> None:
    layer = KINDS[kind](hosts=[valkey.url], channel_capacity={"small": 2})
    pairs: Pairs = [(name, {"n": n}) for n in range(4) for name in ("small", "large")]
    outcomes = await way(layer, "send_many", [*pairs, ("bad name", {}), ("large", 5)])
    assert [type(o) for o in outcomes[4:8:2]] == [ChannelFull, ChannelFull]
    assert [str(o) for o in outcomes[4:5]] == ["channel small is at capacity"]
    assert all(isinstance(o, TypeError) for o in outcomes[8:])
    assert {*outcomes[:4], *outcomes[5:8:2]} == {None}
    assert [(await soon(layer, "large"))["n"] for _ in range(4)] == [0, 1, 2, 3]
    assert [(await soon(layer, "small"))["n"] for _ in range(2)] == [0, 1]
    assert await way(layer, "send_many", []) == []
    with pytest.raises(TypeError, match="not a pair"):
        await way(layer, "send_many", ["worker"])
    await layer.close_pools()


async def test_groups(kind: str, way: Way, valkey: Server, redis62: Server) -> None:
    """Members of several groups, on two shards, get each message once, in order."""
    layer = KINDS[kind](hosts=[valkey.url, redis62.url])
    names = [await layer.new_channel() for _ in range(6)]
    for number, name in enumerate(names):
        await layer.group_add("all", name)
        await layer.group_add(f"room{number % 2}", name)
    pairs: Pairs = []
    for n in range(10):
        pairs += [("all", {"n": n}), (f"room{n % 2}", {"n": n}), ("nobody", {})]
    outcomes = await way(layer, "group_send_many", [*pairs, ("bad name", {})])
    assert outcomes[:-1] == [None] * 30
    assert isinstance(outcomes[-1], TypeError)
    for number, name in enumerate(names):
        got = [(await soon(layer, name))["n"] for _ in range(15)]
        twice = [n for n in range(10) if n % 2 == number % 2]
        assert sorted(got) == sorted([*range(10), *twice])
        firsts = list(dict.fromkeys(got))
        assert kind == "pubsub" or firsts == list(range(10))
    await layer.close_pools()


async def test_more_than_one_command_holds(way: Way, valkey: Server) -> None:
    layer = KINDS["core"](hosts=[valkey.url], capacity=10_000)
    pairs: Pairs = [
        ("worker", {"n": n, "x": "x" * (n % 5) * 5000}) for n in range(1200)
    ]
    assert await way(layer, "send_many", pairs) == [None] * 1200
    got = [(await soon(layer, "worker"))["n"] for _ in range(1200)]
    assert got == list(range(1200))
    await layer.close_pools()


async def test_one_round_trip(
    kind: str, way: Way, valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    """Against the delay of a network: as one send, not as a hundred."""
    proxy = start_proxy(valkey)
    layer = KINDS[kind](hosts=[proxy.url])
    await way(layer, "send_many", [("worker0", {}), ("worker1", {})])
    proxy.requests.delay = 0.05
    began = asyncio.get_running_loop().time()
    outcomes = await way(layer, "send_many", [(f"worker{n}", {}) for n in range(100)])
    assert outcomes == [None] * 100
    assert asyncio.get_running_loop().time() - began < 50 * 0.05
    proxy.requests.delay = 0.0
    await layer.close_pools()


async def test_a_lost_connection(
    kind: str, way: Way, valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    """Each outcome tells what is known, and nothing is sent twice."""
    proxy = start_proxy(valkey)
    layer = KINDS[kind](hosts=[proxy.url])
    await way(layer, "send_many", [("worker", {"n": -1})])
    proxy.replies.cut_after(0)
    outcomes = await way(layer, "send_many", [("worker", {"n": n}) for n in range(9)])
    assert all(isinstance(o, errors.ConnectionError) for o in outcomes)

    async def works() -> bool:
        (outcome,) = await way(layer, "send_many", [("worker", {"n": 9})])
        return outcome is None

    while not await works():
        pass
    got = [(await soon(layer, "worker"))["n"] for _ in range(11)]
    assert got == list(range(-1, 10))
    await layer.close_pools()


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("core", in_loop),
        ("pubsub", in_thread),
        pytest.param("core", in_thread, marks=pytest.mark.slow),
        pytest.param("pubsub", in_loop, marks=pytest.mark.slow),
    ],
    indirect=True,
)
async def test_a_slot_that_moved(kind: str, way: Way, own_primaries: Cluster) -> None:
    """The whole batch is redirected, and each channel's order stays."""
    if kind == "pubsub" and UNSHARDED:
        pytest.skip(UNSHARDED)
    sender, reader = (
        KINDS[kind](hosts=[own_primaries.host], capacity=1000) for _ in range(2)
    )
    name = await reader.new_channel()
    key = f"asgi{name.partition('!')[0]}!" if kind == "core" else name
    # The sender knows where everything is.
    assert await way(sender, "send_many", [(name, {"n": -1})]) == [None]
    assert await soon(reader, name) == {"n": -1}
    slot = slot_of(key)
    source = own_primaries.node_of_slot(slot)
    target = next(node for node in own_primaries.primaries if node is not source)
    await asyncio.to_thread(own_primaries.migrate_slot, slot, target)
    if kind == "pubsub":
        await eventually(
            lambda: target.client().pubsub_shardnumsub(name)[0][1], "the subscription"
        )
    pairs: Pairs = [(name, {"n": n}) for n in range(60)]
    pairs += [(f"worker{n}", {}) for n in range(20)]
    assert await way(sender, "send_many", pairs) == [None] * 80
    got = [(await soon(reader, name))["n"] for _ in range(60)]
    assert got == list(range(60))
    await sender.close_pools()
    await reader.close_pools()


async def test_silent_hosts_cost_no_other(way: Way, valkey: Server) -> None:
    """Clusters are asked for their commands first, each in its turn."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = {"cluster": [silent.getsockname()]}
        layer = KINDS["pubsub"](hosts=[host, host, valkey.url], command_timeout=0.5)
        pairs = [(f"group{n}", {"n": n}) for n in range(30)]
        places = [layer.consistent_hash(layer._group_name(g)) for g, _ in pairs]
        assert {*places} == {0, 1, 2}
        outcomes = await way(layer, "group_send_many", pairs)
        for place, outcome in zip(places, outcomes, strict=True):
            assert isinstance(outcome, errors.ConnectionError) == (place < 2)
        await layer.close_pools()


async def test_one_bad_message_costs_no_other(way: Way, valkey: Server) -> None:
    """Some serialisers find out only when it is on its way."""
    layer = KINDS["core"](hosts=[valkey.url], serializer_format="json")
    name = await layer.new_channel()
    await layer.group_add("room", name)
    good = {"n": 1}
    pairs: Pairs = [("room", good), ("room", {"bad": object()}), ("room", good)]
    outcomes = await way(layer, "group_send_many", pairs)
    assert [type(o) for o in outcomes] == [type(None), InvalidMessage, type(None)]
    assert [await soon(layer, name) for _ in range(2)] == [good] * 2
    await layer.close_pools()
