"""Groups with a history on shards, on a Cluster and behind Sentinels."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.clusters import Cluster, slot_of
from support.following import GROUP, HISTORY, Follower, insist, place, send
from support.layers import opened
from support.polling import eventually
from support.programs import UNSHARDED
from support.sentinels import SentinelSet
from support.servers import Server
from support.syncing import KINDS

both = pytest.mark.parametrize("kind", KINDS)
NAMES = {"core": "asgi:group:room-1", "pubsub": "asgi__group__room-1"}

CLUSTERED: list[Any] = [("core", {}), ("pubsub", {"sharded_pubsub": False})]
if not UNSHARDED:
    CLUSTERED.append(("pubsub", {"sharded_pubsub": True}))


async def follow(sender: Any, *layers: Any) -> None:
    """Followers in each layer get what comes, and those that come late all of it."""
    since = await layers[0].group_position(GROUP)
    followers = [await Follower.join(layer, since) for layer in layers]
    await send(sender, *range(5))
    followers += [await Follower.join(layer, since) for layer in layers]
    await send(sender, *range(5, 10))
    for follower in followers:
        await eventually(lambda one=follower: one.numbers == [*range(10)], "all")
        assert not follower.gaps
        await follower.end()
    page = await sender.group_history(GROUP, since)
    assert [message["n"] for message in page.messages] == [*range(10)]


@both
async def test_on_shards(kind: str, valkey: Server, redis62: Server) -> None:
    hosts = [valkey.url, redis62.url]
    async with (
        opened(*hosts, kind=kind, history=HISTORY) as layer,
        opened(*hosts, kind=kind, history=HISTORY) as sender,
    ):
        await follow(sender, layer, sender)
        groups = [f"room-{n}" for n in range(20)]
        for group in groups:
            await sender.group_send(group, {"type": "said"})
    held = [server.client().keys("asgi:history:*") for server in (valkey, redis62)]
    assert all(held)
    assert sum(map(len, held)) == len(groups)


@pytest.mark.parametrize(("kind", "options"), CLUSTERED)
async def test_on_a_cluster(cluster: Cluster, kind: str, options: Any) -> None:
    options = {**options, "kind": kind, "history": HISTORY}
    async with (
        opened(cluster.host, **options) as layer,
        opened(cluster.host, **options) as sender,
    ):
        await follow(sender, layer, sender)
        name = NAMES[kind]
        held = cluster.node_of(name).client().keys("asgi:*:{*")
        assert len(held) == 2
        assert {slot_of(key) for key in held} == {slot_of(name)}


@pytest.mark.parametrize(("kind", "options"), CLUSTERED)
async def test_a_slot_that_moves(
    own_primaries: Cluster, kind: str, options: Any
) -> None:
    options = {**options, "kind": kind, "history": HISTORY}
    cluster, name = own_primaries, NAMES[kind]
    async with (
        opened(cluster.host, **options) as layer,
        opened(cluster.host, **options) as sender,
    ):
        follower = await Follower.join(layer)
        numbers: list[int] = []
        is_over = asyncio.Event()

        async def load() -> None:
            while not is_over.is_set():
                await send(sender, len(numbers))
                numbers.append(len(numbers))

        loading = asyncio.create_task(load())
        here = cluster.node_of(name)
        target = next(node for node in cluster.primaries if node is not here)
        await eventually(lambda: len(numbers) > 20, "some load")
        await asyncio.to_thread(cluster.migrate_slot, slot_of(name), target)
        sent = len(numbers)
        await eventually(lambda: len(numbers) > sent + 20, "more load")
        is_over.set()
        await loading
        last = place(await insist(lambda: sender.group_position(GROUP)))
        await send(sender, "last")
        await eventually(lambda: follower.numbers[-1:] == ["last"], "all to come")
        # It is another server's memory from there on: a gap, or none.
        assert len(follower.gaps) <= 1
        assert follower.at >= last
        await follower.end()


@pytest.mark.slow
@both
async def test_a_replica_that_lags_is_a_gap(
    own_sentinels: SentinelSet, kind: str
) -> None:
    """It is promoted without what others have seen: no number is given twice."""
    async with (
        opened(own_sentinels.host, kind=kind, history=HISTORY) as layer,
        opened(own_sentinels.host, kind=kind, history=HISTORY) as sender,
    ):
        follower = await Follower.join(layer)
        await send(sender, 1)
        primary = own_sentinels.primary
        (replica,) = own_sentinels.replicas
        await eventually(lambda: replica.client().keys("asgi:history:*"), "a copy")
        replica.client().replicaof("127.0.0.1", 1)  # it hears nothing any more
        await send(sender, 2, 3)
        await eventually(lambda: follower.numbers == [1, 2, 3], "all three")
        primary.kill()
        replica.client().replicaof("NO", "ONE")

        said = {"type": "said", "n": 4}
        await insist(lambda: sender.group_send(GROUP, said))
        await eventually(lambda: follower.numbers[-1] == 4, "it", timeout=30)
        assert len(follower.gaps) == 1
        await follower.end()
