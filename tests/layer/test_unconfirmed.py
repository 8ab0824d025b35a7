"""`confirm_sends=False`: what returns when, what is counted, what keeps its order."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull

from channels_redis_fast.commands.command import Command
from channels_redis_fast.commands.scripts import key_of
from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.runtime.unconfirmed import (
    FAILED,
    FULL,
    Asked,
    UnconfirmedSends,
)
from support.clusters import Cluster
from support.layers import opened, soon, unconfirmed
from support.peers import CORE, PUBSUB
from support.polling import eventually
from support.servers import Server, kept
from support.syncing import KINDS

COUNT = 3_000


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def numbers(layer: Any, channel: str, count: int) -> list[int]:
    """The next messages' numbers."""
    return [(await soon(layer, channel))["n"] for _ in range(count)]


# What arrives


@pytest.mark.parametrize("normal", [False, True], ids=["own", "normal"])
async def test_order_and_others_run_meanwhile(
    kind: str, normal: bool, valkey: Server
) -> None:
    """A loop of sends that never waits by itself holds up nobody."""
    count = COUNT // 5 if normal else COUNT  # each is asked for by itself
    async with unconfirmed(kind, valkey.url, capacity=count) as layer:
        channel = "worker" if normal else await layer.new_channel()
        reading = asyncio.create_task(numbers(layer, channel, count))
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while not reading.done():
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count_turns())
        for n in range(count):
            await layer.send(channel, {"n": n})
        assert turns >= count // 200
        assert await reading == list(range(count))
        await counting
        await layer.flush_sends()
        assert layer.counters == {}


async def test_many_senders(kind: str, valkey: Server) -> None:
    async with unconfirmed(kind, valkey.url, capacity=COUNT) as layer:
        channel = await layer.new_channel()

        async def work(start: int) -> None:
            for n in range(start, COUNT, 50):
                await layer.send(channel, {"n": n})

        await asyncio.gather(*map(work, range(50)))
        got = await numbers(layer, channel, COUNT)
        assert sorted(got) == list(range(COUNT))
        for start in range(50):  # in the order of each sender
            mine = [n for n in got if n % 50 == start]
            assert mine == sorted(mine)


async def test_groups(kind: str, valkey: Server) -> None:
    async with (
        unconfirmed(kind, valkey.url, capacity=500) as layer,
        unconfirmed(kind, valkey.url, capacity=500) as other,
    ):
        members = [(one, await one.new_channel()) for one in (layer, layer, other)]
        for one, name in members:
            await one.group_add("room", name)
        for n in range(300):
            await layer.group_send("room", {"n": n})
        pairs = [("room", {"n": 300}), ("bad name", {})]
        good, bad = await layer.group_send_many(pairs)
        assert good is None
        assert isinstance(bad, TypeError)
        for one, name in members:
            assert await numbers(one, name, 301) == list(range(301))
        await layer.group_send("nobody", {"n": 1})
        await layer.flush_sends()
        assert layer.counters == {}


async def test_send_many(kind: str, valkey: Server) -> None:
    async with unconfirmed(kind, valkey.url, capacity=2_000) as layer:
        name = await layer.new_channel()
        pairs = [(to, {"n": n}) for n in range(1_200) for to in (name, "worker")]
        outcomes = await layer.send_many([*pairs, ("bad name", {}), (name, 5)])
        assert {*outcomes[:-2]} == {None}
        assert all(isinstance(one, TypeError) for one in outcomes[-2:])
        for channel in name, "worker":
            assert await numbers(layer, channel, 1_200) == list(range(1_200))


async def test_shards_and_clusters(
    kind: str, valkey: Server, redis62: Server, cluster: Cluster
) -> None:
    for hosts in ([valkey.url, redis62.url], [cluster.host]):
        async with unconfirmed(kind, *hosts, capacity=500) as layer:
            names = [await layer.new_channel() for _ in range(10)]
            for name in names:
                await layer.group_add("room", name)
            for n in range(200):
                await layer.send(names[n % 10], {"n": n})
                await layer.send("worker", {"n": n})
            await layer.flush_sends()
            await layer.group_send("room", {"n": 200})
            for i, name in enumerate(names):
                assert await numbers(layer, name, 21) == [*range(i, 200, 10), 200]
            assert sorted(await numbers(layer, "worker", 200)) == list(range(200))
            assert layer.counters == {}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.slow
async def test_in_another_process(
    kind: str, loop: str, valkey: Server, start_peer: Any
) -> None:
    config = {"hosts": [valkey.url], "capacity": COUNT, "confirm_sends": False}
    path = CORE if kind == "core" else PUBSUB
    sender = await start_peer(path, config, loop=loop)
    receiver = await start_peer(path, config, loop=loop)
    name = await receiver.new_channel()
    collecting = receiver.begin("collect", name, COUNT, timeout=30)
    burst = await sender.burst(name, COUNT)
    assert burst["accepted"] == list(range(COUNT))
    answer = await collecting
    assert [number for _, number in answer["received"]] == list(range(COUNT))


# What is counted


async def test_a_full_channel(
    kind: str, valkey: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with unconfirmed(kind, valkey.url, capacity=2) as layer:
        for n in range(10):
            await layer.send("worker", {"n": n})
        await layer.flush_sends()
        assert layer.counters == {FULL: 8}
        await layer.send_many([("worker", {"n": n}) for n in range(4)])
        await layer.flush_sends()
        assert layer.counters == {FULL: 12}
        assert [FULL in line for line in caplog.messages].count(True) == 1
        assert await numbers(layer, "worker", 2) == [0, 1]


async def test_a_full_member_of_a_group(valkey: Server) -> None:
    async with (
        unconfirmed("core", valkey.url, capacity=2) as layer,
        opened(valkey.url, capacity=2) as other,
    ):
        for one in layer, other:
            await one.group_add("room", await one.new_channel())
        for n in range(3):
            await layer.group_send("room", {"n": n})
        await layer.flush_sends()
        assert layer.counters == {FULL: 2}


async def test_what_a_server_refuses(kind: str, server: Server) -> None:
    async with unconfirmed(kind, server.url) as layer:
        await layer.send("worker", {"n": 0})
        await layer.flush_sends()
        client = server.client()
        client.execute_command("ACL", "SETUSER", "default", "-zadd", "-publish")
        outcomes = await layer.send_many([("worker", {"n": n}) for n in range(3)])
        await layer.send("worker", {"n": 4})
        await layer.group_send("room", {"n": 5})
        await layer.flush_sends()
        assert outcomes == [None] * 3
        assert layer.counters == {FAILED: 4 + (kind == "pubsub")}
        client.execute_command("ACL", "SETUSER", "default", "+@all")
        await layer.send("worker", {"n": 6})
        assert await numbers(layer, "worker", 2) == [0, 6]


class Choosy(RedisChannelLayer):
    """Can't serialise for more than one channel."""

    def serialize(self, message: dict[str, Any]) -> bytes:
        if len(message.get("__asgi_channel__", ())) == 2:
            raise ValueError("two channels")
        return super().serialize(message)


async def test_a_serialiser_that_fails_for_the_members(valkey: Server) -> None:
    layer = Choosy(hosts=[valkey.url], confirm_sends=False)
    for _ in range(2):
        await layer.group_add("room", await layer.new_channel())
    names = [await layer.new_channel() for _ in range(2)]
    for name in names:
        await layer.group_add("pair", name)
    await layer.group_send("pair", {"n": 1})
    await layer.flush_sends()
    assert layer.counters == {FAILED: 1}
    await layer.close_pools()


async def test_forgotten_scripts(valkey: Server) -> None:
    async with unconfirmed("core", valkey.url, capacity=COUNT) as layer:
        name = await layer.new_channel()
        reading = asyncio.create_task(numbers(layer, name, 600))
        for n in range(600):
            await layer.send(name, {"n": n})
            if n % 100 == 50:
                await layer.flush_sends()
                valkey.client().script_flush()
        assert await reading == list(range(600))
        assert layer.counters == {}


# What raises


@pytest.mark.parametrize("format", ["msgpack", "json"])
async def test_wrong_input_raises_at_once(
    kind: str, format: str, valkey: Server
) -> None:
    options = {"serializer_format": format, "max_message_size": 1_000}
    async with unconfirmed(kind, valkey.url, **options) as layer:
        for message in ({"n": {1}}, {"n": "x" * 2_000}, 5):
            with pytest.raises(TypeError):
                await layer.send("worker", message)
            with pytest.raises(TypeError):
                await layer.group_send("room", message)
            for many in layer.send_many, layer.group_send_many:
                (outcome,) = await many([("room", message)])
                assert isinstance(outcome, TypeError)
        with pytest.raises(TypeError):
            await layer.send("bad name", {})
        with pytest.raises(TypeError):
            await layer.group_send("bad name", {})
        assert layer.counters == {}


async def test_blocking_calls_confirm(kind: str, valkey: Server) -> None:
    async with unconfirmed(kind, valkey.url, capacity=1) as layer:

        def block() -> None:
            layer.sync.send("worker", {"n": 1})
            with pytest.raises(ChannelFull):
                layer.sync.send("worker", {"n": 2})
            with pytest.raises(ChannelFull):
                async_to_sync(layer.send)("worker", {"n": 3})

        await asyncio.to_thread(block)
        await layer.flush_sends()  # nothing to wait for
        assert layer.counters == {}
        assert await numbers(layer, "worker", 1) == [1]
        layer.sync.close()


# What ends


async def test_flush_sends_awaits_both_halves(valkey: Server) -> None:
    async with (
        unconfirmed("core", valkey.url) as layer,
        opened(valkey.url) as other,
    ):
        name = await other.new_channel()
        await other.group_add("room", name)
        for n in range(50):
            await layer.group_send("room", {"n": n})
        await layer.flush_sends()
        key = f"asgi{name.partition('!')[0]}!"
        assert valkey.client().zcard(key) == 50


async def test_flush_sends_awaits_no_later_ones(kind: str, valkey: Server) -> None:
    async with unconfirmed(kind, valkey.url, capacity=10) as layer:
        ended = False

        async def send() -> None:
            while not ended:
                await layer.send("worker", {"n": 1})

        sending = asyncio.create_task(send())
        for _ in range(5):
            await asyncio.wait_for(layer.flush_sends(), 10)
        assert not sending.done()
        ended = True
        await sending


async def test_closing_loses_nothing(kind: str, valkey: Server) -> None:
    """By close_pools, and by the end of an event loop."""
    layer = KINDS[kind](hosts=[valkey.url], capacity=1_000, confirm_sends=False)

    async def send(close: bool) -> None:
        for n in range(400):
            await layer.send("worker", {"n": n})
        if close:
            await layer.close_pools()

    await send(close=True)
    assert valkey.client().zcard("asgiworker") == 400
    thread = threading.Thread(target=asyncio.run, args=(send(close=False),))
    thread.start()
    await eventually(lambda: not thread.is_alive(), "the end of the loop")
    assert valkey.client().zcard("asgiworker") == 800
    assert layer.counters == {}


async def test_flush_removes_what_is_on_its_way(kind: str, valkey: Server) -> None:
    async with unconfirmed(kind, valkey.url, capacity=1_000) as layer:
        await layer.group_add("room", await layer.new_channel())
        for n in range(100):
            await layer.send("worker", {"n": n})
            await layer.group_send("room", {"n": n})
        await layer.flush()
        await layer.flush_sends()
        assert kept(valkey.client()) == []


class Away:
    """A shard without a connection at first; all that is run later succeeds."""

    index = 0

    def __init__(self, members: list[bytes]) -> None:
        self.ran: list[Command] = []
        self._members = members

    def post(self, command: Command, receipt: Any) -> None:
        """Takes nothing."""

    def post_later(self, command: Command, receipt: Any) -> None:
        """Answers a little later."""
        self.ran.append(command)
        reply = self._members if len(self.ran) == 1 else [1]
        asyncio.get_running_loop().call_soon(receipt.set_result, reply)


async def test_what_waits_may_bring_more_to_wait() -> None:
    """The members of a group, and then its messages, while no connection is there."""
    layer = RedisChannelLayer(confirm_sends=False)
    shard: Any = Away([b"specific.x!y"])
    sends = UnconfirmedSends([shard], layer._operations, layer._counters)
    index, members = layer._operations.members("room")
    queue = sends._queues[index]
    queue.push(Asked(queue, members, [layer._codec.body({"n": 1})]), sends.batch)
    await asyncio.wait_for(sends.settled(), 5)
    assert [key_of(command) for command in shard.ran] == [
        b"asgi:group:room",
        b"asgispecific.x!",
    ]
    assert queue.load == 0
