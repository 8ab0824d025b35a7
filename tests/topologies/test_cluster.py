"""The layer on a Cluster: every method, on all nodes, while primaries die."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
from redis import exceptions as errors

from channels_redis_fast.core import RedisChannelLayer
from support.behaviours import BEHAVIOURS, Behaviour, until_it_works
from support.clusters import Cluster, group_on, key_of
from support.crowds import Crowd, Sender, eventually_sent
from support.failovers import goes_on, is_back
from support.layers import call, nothing, opened, soon
from support.polling import eventually, until
from support.programs import UNSPLIT
from support.servers import Server, free_port, kept

Layers = tuple[RedisChannelLayer, RedisChannelLayer]


@pytest.fixture
async def layers(cluster: Cluster) -> AsyncIterator[Layers]:
    """Two layers on the shared Cluster."""
    async with opened(cluster.host) as one, opened(cluster.host) as other:
        yield one, other


@pytest.mark.parametrize("behaviour", BEHAVIOURS.values(), ids=BEHAVIOURS)
async def test_behaves(layers: Layers, behaviour: Behaviour) -> None:
    await behaviour(*layers)


async def test_a_password() -> None:
    with Cluster(password="the secret") as own:
        async with opened(own.host) as one, opened(own.host) as other:
            for behaviour in BEHAVIOURS.values():
                await behaviour(one, other)
        async with opened({**own.host, "password": "wrong"}) as layer:
            with pytest.raises(errors.RedisError, match="password") as caught:
                await layer.send("worker", {})
            assert "the secret" not in str(caught.value)


async def test_one_node_is_enough_to_find_the_others(own_cluster: Cluster) -> None:
    """And those that are gone, or follow another, don't matter."""
    gone = ("127.0.0.1", free_port())
    primaries = own_cluster.primaries
    replica = next(node for node in own_cluster.nodes if node not in primaries)
    host = {"cluster": [gone, replica.address]}
    async with opened(host) as one, opened(host) as other:
        await BEHAVIOURS["groups"](one, other)


# All nodes


async def test_groups_over_all_nodes(layers: Layers, cluster: Cluster) -> None:
    one, other = layers
    # A prefix is a process key: these are on all nodes, like the groups.
    names = [await one.new_channel(f"prefix{n}") for n in range(20)]
    used: Counter[Server] = Counter()
    for n in range(20):
        group = f"room{n}"
        for name in names:
            await one.group_add(group, name)
        owner = cluster.node_of(f"asgi:group:{group}")
        assert owner.client().zcard(f"asgi:group:{group}") == 20
        used[owner] += 1
        await other.group_send(group, {"n": n})
        received = await asyncio.gather(*(soon(one, name) for name in names))
        assert received == [{"n": n}] * 20
    assert set(used) == set(cluster.primaries)
    homes = {cluster.node_of(f"asgi{name.split('!')[0]}!") for name in names}
    assert homes == set(cluster.primaries)


async def test_flush_reaches_all_nodes(layers: Layers, cluster: Cluster) -> None:
    one, other = layers
    for n in range(30):
        await other.send(f"worker{n}", {})
        await other.group_add(f"room{n}", "worker")
        cluster.client().set(f"other{n}", 1)
    others = {f"other{n}".encode() for n in range(30)}
    assert all({*kept(node.client())} - others for node in cluster.primaries)
    await one.flush()
    found = [key for node in cluster.primaries for key in kept(node.client())]
    assert set(found) == others


# No Cluster


@pytest.mark.parametrize("kind", ["other", "gone"])
async def test_an_address_that_is_no_cluster(valkey: Server, kind: str) -> None:
    address = valkey.address if kind == "other" else ("127.0.0.1", free_port())
    named = "cluster support disabled" if kind == "other" else str(address[1])
    async with opened({"cluster": [address]}) as layer:
        name = await layer.new_channel()
        for call in (
            layer.send(name, {}),
            layer.send("worker", {}),
            layer.group_add("room", name),
            layer.group_discard("room", name),
            layer.group_send("room", {}),
            layer.flush(),
        ):
            with pytest.raises(errors.ConnectionError, match=named) as caught:
                await call
            assert f"cluster 127.0.0.1:{address[1]}" in str(caught.value)


@pytest.mark.parametrize("way", ["loop", "thread"])
async def test_a_node_that_the_others_forgot(
    cluster: Cluster, start_server: Callable[..., Server], way: str
) -> None:
    """It still answers, and knows of no slot."""
    forgotten = start_server(options={"cluster-enabled": "yes"})
    assert forgotten.client().execute_command("CLUSTER SLOTS") == []
    nodes = [forgotten.address, *(node.address for node in cluster.nodes)]
    async with opened({"cluster": nodes}) as layer, opened(cluster.host) as other:
        await call(layer, way, "send", "worker", {"n": 1})
        assert await soon(other, "worker") == {"n": 1}
        layer.sync.close()
    async with opened({"cluster": [forgotten.address]}, command_timeout=0.3) as layer:
        with pytest.raises(errors.ClusterDownError):
            await call(layer, way, "send", "worker", {"n": 1})
        with pytest.raises(errors.ClusterDownError):
            await call(layer, way, "flush")
        layer.sync.close()


async def test_silent_nodes_hold_nobody_up_for_long() -> None:
    """All of them take as long as one, and then callers hear of it at once."""
    loop, timeout = asyncio.get_running_loop(), 0.6  # over before the first heartbeat
    with contextlib.ExitStack() as stack:
        silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        for one in silent:
            stack.enter_context(one)
        nodes = [one.getsockname() for one in silent]
        host = {"cluster": nodes, "socket_connect_timeout": timeout}
        async with opened(host) as layer:
            began = loop.time()
            calls = [layer.group_add("room", f"worker{n}") for n in range(10)]
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(outcome, errors.ConnectionError)
            once = loop.time()
            assert once - began < 2 * timeout
            with pytest.raises(errors.ConnectionError, match="in time"):
                await layer.group_add("room", "worker")
            assert loop.time() - once < timeout / 2


# Nodes that die


@pytest.mark.parametrize(
    "dies", ["readers' node", pytest.param("group's node", marks=pytest.mark.slow)]
)
async def test_failover_under_load(
    own_cluster: Cluster, caplog: pytest.LogCaptureFixture, dies: str
) -> None:
    async with opened(own_cluster.host) as layer:
        process_key = key_of(await layer.new_channel())
        first, other, _ = own_cluster.primaries
        readers = own_cluster.node_of(process_key)
        group = group_on(own_cluster, other if readers is first else first)
        key = process_key if dies == "readers' node" else f"asgi:group:{group}"
        async with Crowd(layer, 20, group) as crowd, Sender(layer, group) as sender:
            await sender.accepts(50)
            await asyncio.to_thread(own_cluster.kill_primary_of, key)
            await goes_on(crowd, sender, caplog)


async def test_a_dead_node_keeps_nothing_from_those_on_others(
    own_cluster: Cluster,
) -> None:
    dying, other, _ = own_cluster.primaries
    group = group_on(own_cluster, other)
    async with opened(own_cluster.host) as layer, opened(own_cluster.host) as sender:
        first, second = [
            await channel_on(own_cluster, node, layer) for node in (dying, other)
        ]
        for name in first, second:
            await layer.group_add(group, name)
        await sender.group_send(group, {"n": 0})
        for name in first, second:
            assert await soon(layer, name) == {"n": 0}
        dying.kill()
        assert await until_refused(sender, first)
        with pytest.raises(errors.ConnectionError):
            await sender.group_send(group, {"n": 1})
        assert await soon(layer, second) == {"n": 1}
        pairs = [(first, {}), (second, {"n": 2})]
        refused, sent = await sender.send_many(pairs)
        assert isinstance(refused, errors.ConnectionError)
        assert sent is None
        assert await soon(layer, second) == {"n": 2}


@pytest.mark.skipif(bool(UNSPLIT), reason=str(UNSPLIT))
@pytest.mark.parametrize(
    "way", ["loop", pytest.param("thread", marks=pytest.mark.slow)]
)
async def test_a_node_that_lost_the_others_is_not_believed(
    own_cluster: Cluster, way: str
) -> None:
    """Clients reach it, and it says CLUSTERDOWN; its replica was promoted meanwhile."""
    lost = own_cluster.primaries[0]
    async with opened(own_cluster.host) as layer, opened(own_cluster.host) as other:
        name = await channel_on(own_cluster, lost, layer)
        await call(other, way, "send", name, {"n": 0})
        assert await soon(layer, name) == {"n": 0}
        waiting = asyncio.create_task(soon(layer, name, 30))
        lost.client().execute_command("DEBUG DROP-CLUSTER-PACKET-FILTER -2")
        await asyncio.to_thread(until, lambda: is_replaced(own_cluster, lost), "it")
        await call(other, way, "send", name, {"n": 1})
        assert await waiting == {"n": 1}


async def test_who_only_receives_follows_a_failover(own_cluster: Cluster) -> None:
    """Nothing that it sends tells it where the keys are now."""
    async with opened(own_cluster.host) as layer, opened(own_cluster.host) as other:
        name = await layer.new_channel()
        waiting = asyncio.create_task(soon(layer, name, 30))
        await asyncio.to_thread(own_cluster.kill_primary_of, key_of(name))
        await eventually_sent(other, name, {"n": 1})
        assert await asyncio.wait_for(waiting, 5) == {"n": 1}


async def test_a_primary_and_its_replica_swap_under_load(
    own_cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        opened(own_cluster.host) as layer,
        Crowd(layer, 20) as crowd,
        Sender(layer) as sender,
    ):
        await sender.accepts(20)
        for key in key_of(crowd.names[0]), "asgi:group:room":
            await asyncio.to_thread(own_cluster.failover, key)
            began = sender.number
            await sender.accepts(50)
            accepted = sender.since(began)
            await eventually(lambda a=accepted: crowd.all_got(a), "what was accepted")
            crowd.check()


async def test_all_nodes_down_and_back(
    own_cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        opened(own_cluster.host) as layer,
        Crowd(layer, 20) as crowd,
        Sender(layer) as sender,
    ):
        await sender.accepts(50)
        for node in own_cluster.nodes:
            node.kill()
        await eventually(lambda: not is_back(caplog), "the log line")
        failed = sum(sender.errors.values())
        await eventually(lambda: sum(sender.errors.values()) > failed, "an error")
        for node in own_cluster.nodes:
            await asyncio.to_thread(node.start)
        await asyncio.to_thread(until, own_cluster.settled, "the Cluster", timeout=20)
        await goes_on(crowd, sender, caplog)


async def test_an_idle_reader_ends_after_another_began(layers: Layers) -> None:
    """The other one is still told when its slot moves."""
    shard = layers[0]._loops.engine().shards[0]
    told: list[str] = []

    def former() -> None:
        told.append("former")

    def later() -> None:
        told.append("later")

    shard.watch(b"key", former)
    shard.watch(b"key", later)
    shard.unwatch(b"key", former)
    shard._watching[b"key"]()
    shard.unwatch(b"key", later)
    assert told == ["later"]
    assert not shard._watching


async def channel_on(cluster: Cluster, node: Server, layer: RedisChannelLayer) -> str:
    """A channel whose key is on a node; a prefix is a process key."""
    while True:
        name = await layer.new_channel(f"prefix{next(_numbers)}")
        if cluster.node_of(key_of(name)) is node:
            return name


_numbers = itertools.count()


async def until_refused(layer: RedisChannelLayer, channel: str) -> errors.RedisError:
    """The error that a send gets when it is noticed that its node is gone."""
    while True:
        try:
            await layer.send(channel, {})
        except errors.ConnectionError as error:
            return error


def is_replaced(cluster: Cluster, lost: Server) -> bool:
    """Whether a node says that it is lost, and the others that it is no primary."""
    state = lost.client().cluster("info")["cluster_state"]
    other = next(node for node in cluster.nodes if node is not lost)
    rows = other.client().execute_command("CLUSTER SLOTS")
    return state == "fail" and lost.port not in {row[2][1] for row in rows}


async def test_what_others_flushed_stays_gone(layers: Layers, cluster: Cluster) -> None:
    """Connections break, and nothing else: there is nothing to heal."""
    one, other = layers
    name = await one.new_channel()
    for n in range(20):
        await one.group_add(f"room{n}", name)
    await other.flush()
    for node in cluster.primaries:
        assert node.client().client_kill_filter(_type="normal", skipme=True)
    for layer in layers:
        for n in range(20):
            await until_it_works(layer, f"check{n}")
    for n in range(20):
        await other.group_send(f"room{n}", {"n": n})
    assert await nothing(one, name)
