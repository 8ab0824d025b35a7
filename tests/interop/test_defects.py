"""What users of channels_redis 4.3 live with, and users of this package don't.

Each test runs on both layers, each in processes of its own, and says that the incumbent
fails it: a test that it passed would be no test of its defect. What it does not fail
every time is tested on this package alone, by other tests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import pytest
from channels.exceptions import ChannelFull

from channels_redis_fast.wire._hashing import shard_of
from support.clusters import Cluster
from support.peers import CORE, INCUMBENT_CORE, Peer, PeerError, incumbent_hosts
from support.servers import Server, kept

pytestmark = pytest.mark.slow

REDIS_PY_8 = int(version("redis").partition(".")[0]) >= 8
since_redis_py_8 = pytest.mark.skipif(not REDIS_PY_8, reason="needs redis-py 8")


class Library:
    """One of the two packages."""

    def __init__(self, start: Callable[..., Awaitable[Peer]], *, ours: bool) -> None:
        self.ours = ours
        self._start = start

    async def peer(self, *urls: str, flags: tuple[str, ...] = (), **config: Any) -> Any:
        """A process with a layer on these servers."""
        hosts = list(urls) if self.ours else incumbent_hosts(*urls)
        path = CORE if self.ours else INCUMBENT_CORE
        return await self._start(path, {"hosts": hosts, **config}, flags=flags)

    def keeps(self, promise: object) -> None:
        """Fails if this package doesn't keep the promise, or the incumbent does."""
        assert bool(promise) is self.ours


@pytest.fixture(params=["channels_redis_fast", "channels_redis"])
def library(
    request: pytest.FixtureRequest, start_peer: Callable[..., Awaitable[Peer]]
) -> Library:
    return Library(start_peer, ours=request.param == "channels_redis_fast")


async def arrives(peer: Any, channel: str, timeout: float = 1.0) -> bool:
    """Whether a message comes to a channel in time."""
    try:
        await peer.receive(channel, timeout)
    except PeerError as error:
        if error.kind != "TimeoutError":
            raise
        return False
    return True


async def is_refused(call: Awaitable[Any]) -> bool:
    """Whether a call raises something."""
    try:
        await call
    except PeerError:
        return True
    return False


@since_redis_py_8
async def test_1_an_idle_receive_lives(library: Library, valkey: Server) -> None:
    peer = await library.peer(hosts=[valkey.url])
    waiting = peer.begin("receive", "worker")
    done, _ = await asyncio.wait([waiting], timeout=6)
    library.keeps(not done)
    if not done:
        await peer.send("worker", {"n": 1})
        assert await waiting == {"n": 1}
    else:
        assert waiting.exception().kind == "TimeoutError"


async def test_3_direct_messages_find_their_shard(
    library: Library, start_server: Callable[..., Server]
) -> None:
    peer = await library.peer(*(start_server().url for _ in range(4)))
    while True:
        name = await peer.new_channel()
        if shard_of(name, 4) != shard_of(name.partition("!")[0] + "!", 4):
            break
    await peer.send(name, {"n": 1})
    library.keeps(await arrives(peer, name))


async def test_4_waiting_consumers_survive_a_restart(
    library: Library, server: Server
) -> None:
    peer = await library.peer(server.url)
    waiting = peer.begin("receive", await peer.new_channel())
    await peer.send("worker", {})  # by now it waits
    server.restart(empty=True)
    done, _ = await asyncio.wait([waiting], timeout=1)
    library.keeps(not done)
    if done:
        assert "ConnectionError" in waiting.exception().kinds
    await peer.cancel(waiting)


async def test_5_groups_survive_the_loss_of_data(
    library: Library, server: Server
) -> None:
    peer = await library.peer(server.url)
    name = await peer.new_channel()
    await peer.group_add("room", name)
    server.restart(empty=True)
    for _ in range(100):
        if not await is_refused(peer.group_send("room", {"n": 1})):
            break
        await asyncio.sleep(0.01)
    library.keeps(await arrives(peer, name))


async def test_5_living_members_stay(library: Library, valkey: Server) -> None:
    peer = await library.peer(valkey.url, group_expiry=1)
    name = await peer.new_channel()
    await peer.group_add("room", name)
    await asyncio.sleep(2.1)
    await peer.group_send("room", {"n": 1})
    library.keeps(await arrives(peer, name))


async def test_7_queues_of_those_that_ended_go(
    library: Library, valkey: Server
) -> None:
    peer = await library.peer(valkey.url, expiry=1)
    ended, lives = await peer.new_channel(), await peer.new_channel()
    for name in ended, lives:
        await peer.group_add("room", name)
    await peer.group_send("room", {"n": 1})
    assert await arrives(peer, lives)
    assert await peer.buffered() == [ended]
    await asyncio.sleep(2.5)
    library.keeps(await peer.buffered() == [])


async def test_10_a_cluster(library: Library, cluster: Cluster) -> None:
    hosts = [cluster.host] if library.ours else [cluster.nodes[0].url]
    peer = await library.peer(hosts=hosts)
    groups = [f"group{n}" for n in range(20)]
    name = await peer.new_channel()
    refused = [await is_refused(peer.group_add(group, name)) for group in groups]
    library.keeps(not any(refused))


@pytest.mark.parametrize("step", [0, -1], ids=["stands still", "runs backwards"])
async def test_11_order_needs_no_clock(
    library: Library, valkey: Server, step: int
) -> None:
    peer = await library.peer(valkey.url)
    await peer.clock(time.time(), step)
    burst = await peer.burst("worker", 50)
    got = [(await peer.receive("worker", 5))["n"] for _ in burst["accepted"]]
    library.keeps(got == burst["accepted"])


@pytest.mark.parametrize("name", ["", "a b", "ключ", "x" * 200, "abc\n"], ids=ascii)
async def test_12_names_are_checked_with_python_O(
    library: Library, valkey: Server, name: str
) -> None:
    peer = await library.peer(valkey.url, flags=("-O",))
    library.keeps(await is_refused(peer.send(name, {})))


async def test_12_messages_are_checked_with_python_O(
    library: Library, valkey: Server
) -> None:
    peer = await library.peer(valkey.url, flags=("-O",))
    library.keeps(await is_refused(peer.send("worker", {"__asgi_channel__": "other"})))


@pytest.mark.parametrize("prefix", ["a*", "a?", "[ab]"])
async def test_13_flush_takes_its_own_keys_alone(
    library: Library, valkey: Server, prefix: str
) -> None:
    client = valkey.client()
    client.set("axel", "somebody else's")
    peer = await library.peer(valkey.url, prefix=prefix)
    await peer.send("worker", {})
    await peer.flush()
    library.keeps(client.exists("axel"))


async def test_13_flush_blocks_nobody(library: Library, server: Server) -> None:
    peer = await library.peer(server.url)
    await peer.send("worker", {})
    await peer.flush()
    assert not kept(server.client())
    library.keeps("cmdstat_keys" not in server.client().info("commandstats"))


async def test_15_one_of_several_readers_gets_it(
    library: Library, valkey: Server
) -> None:
    count = 500
    readers = [await library.peer(valkey.url, capacity=count) for _ in range(4)]
    sender = await library.peer(valkey.url, capacity=count)
    collecting = [
        reader.begin("collect", "worker", timeout=60, idle=1, readers=4)
        for reader in readers
    ]
    sent = await sender.burst("worker", count, senders=5)
    answers = await asyncio.gather(*collecting)
    received = [number for one in answers for _, number in one["received"]]
    library.keeps(sorted(received) == sent["accepted"])


@since_redis_py_8
async def test_16_many_senders_at_once(library: Library, valkey: Server) -> None:
    peer = await library.peer(valkey.url, capacity=500)
    sent = await peer.burst("worker", 300, senders=300)
    assert ChannelFull.__name__ not in sent["failed"]
    library.keeps(len(sent["accepted"]) == 300)
