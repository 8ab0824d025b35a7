"""What happens to a Pub/Sub layer when its connections or its server go."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.pubsub import RedisPubSubChannelLayer as Layer
from support.layers import end, soon
from support.polling import eventually
from support.proxy import Proxy
from support.pubsubs import (
    BACK,
    GONE,
    TOLD,
    Consumers,
    published,
    subscribed,
    subscribers,
)
from support.sentinels import SentinelSet
from support.servers import Server


@pytest.fixture
async def layer(server: Server) -> AsyncIterator[Layer]:
    """A layer on a server of the test's own."""
    async with published(server.url, **TOLD) as layer:
        yield layer


async def insist(call: Callable[..., Any], *args: Any) -> None:
    """Calls again until it succeeds, for a while."""
    for _ in range(200):
        try:
            return await call(*args)  # type: ignore[no-any-return]
        except errors.RedisError:
            await asyncio.sleep(0.05)
    await call(*args)


@pytest.mark.serial
async def test_killed_subscribers_come_back(layer: Layer, server: Server) -> None:
    names = [await layer.new_channel() for _ in range(50)]
    for name in names:
        await layer.group_add("room", name)
    consumers = Consumers(layer, names)
    numbers = itertools.count()

    async def load() -> None:
        while True:
            await layer.group_send("room", {"n": next(numbers)})

    loading = asyncio.create_task(load())
    await eventually(lambda: next(numbers) > 100, "some load")
    began = time.perf_counter()
    assert server.client().client_kill_filter(_type="pubsub") == 1
    await eventually(lambda: consumers.all_got(BACK), "all to be told")
    seconds = time.perf_counter() - began
    assert set(names) < subscribed(server)
    after = next(numbers)
    await eventually(lambda: next(numbers) > after + 100, "more load")
    await end(loading)
    last = {"n": next(numbers)}
    await layer.group_send("room", last)
    await eventually(lambda: consumers.all_got(last), "the last message")
    await consumers.aclose()
    assert consumers.told() == {("gone", "back")}
    assert seconds < 0.1 or asyncio.get_running_loop().get_debug()
    for got in consumers.got.values():
        heard = [message["n"] for message in got if "n" in message]
        assert heard == sorted(set(heard))
        resumed = heard[[m.get("type") for m in got].index("gone")]
        ours = [n for n in heard if n >= resumed]
        assert ours == ours[:1] + [n for n in heard if n > resumed]


@pytest.mark.serial
@pytest.mark.slow
async def test_a_restart_with_many_channels(layer: Layer, server: Server) -> None:
    names = [await layer.new_channel() for _ in range(5_000)]
    for part in range(0, len(names), 500):
        joins = (layer.group_add(f"room{i}", names[part + i]) for i in range(500))
        await asyncio.gather(*joins)
    consumers = Consumers(layer, names)
    server.restart(empty=True)
    began = time.perf_counter()
    await eventually(lambda: consumers.all_got(BACK), "all to be told", timeout=30)
    seconds = time.perf_counter() - began
    assert len(subscribed(server)) == 5_500
    assert consumers.told() == {("gone", "back")}
    await layer.group_send("room7", {"n": 1})
    members = [consumers.got[name] for name in names[7::500]]
    await eventually(lambda: all({"n": 1} in got for got in members), "the group")
    await consumers.aclose()
    # asyncio's debug mode takes several times as long.
    assert seconds < 2 or asyncio.get_running_loop().get_debug()


@pytest.mark.serial
async def test_calls_while_there_is_no_server(layer: Layer, server: Server) -> None:
    name = await layer.new_channel()
    consumers = Consumers(layer, [name])
    server.kill()
    await eventually(lambda: consumers.all_got(GONE), "the loss")
    for call in (
        layer.send(name, {"n": 1}),
        layer.group_send("room", {"n": 1}),
        layer.group_add("room", name),
        layer.new_channel(),
        layer.send("worker", {"n": 1}),
    ):
        began = time.perf_counter()
        with pytest.raises(errors.ConnectionError):
            await call
        assert time.perf_counter() - began < 1
    unknown = asyncio.create_task(soon(layer, f"asgispecific.{'0' * 32}", 30))
    await asyncio.sleep(0.3)
    assert not unknown.done()  # a receive waits for Redis
    server.start()
    await eventually(lambda: consumers.all_got(BACK), "the return")
    await layer.send(name, {"n": 2})
    await eventually(lambda: consumers.all_got({"n": 2}), "a message")
    wanted = {name, f"asgispecific.{'0' * 32}"}
    await eventually(lambda: subscribed(server) == wanted, "just these")
    await layer.send(f"asgispecific.{'0' * 32}", {"n": 3})
    assert await unknown == BACK  # it was there before Redis was
    assert await soon(layer, f"asgispecific.{'0' * 32}") == {"n": 3}
    await consumers.aclose()
    assert consumers.told() == {("gone", "back")}


async def test_closing_the_pools_is_no_return(layer: Layer, server: Server) -> None:
    name = await layer.new_channel()
    server.kill()
    assert await soon(layer, name) == GONE
    await layer.close_pools()
    with pytest.raises(asyncio.TimeoutError):
        await soon(layer, name, 0.3)
    server.start()
    assert await soon(layer, name, 30) == BACK
    assert subscribers(server, name) == 1
    waiting = asyncio.create_task(soon(layer, name))
    await layer.send(name, {"n": 1})
    assert await waiting == {"n": 1}


def listeners(server: Server) -> set[str]:
    """The connections that subscribe."""
    return {one["id"] for one in server.client().client_list(_type="pubsub")}


async def test_a_layer_that_starts_before_redis(server: Server) -> None:
    server.kill()
    async with published(server.url, **TOLD) as layer:
        with pytest.raises(errors.ConnectionError):
            await layer.new_channel()
        assert len(layer._table) == 0
        name = f"asgispecific.{'1' * 32}"
        waiting = asyncio.create_task(soon(layer, name, 30))
        await asyncio.sleep(0.2)
        server.start()
        await eventually(lambda: subscribers(server, name), "the subscription")
        await layer.send(name, {"n": 1})
        assert await waiting == {"n": 1}  # and no word of a loss


@asynccontextmanager
async def consumers_on(
    servers: list[Server],
) -> AsyncIterator[tuple[Layer, Consumers]]:
    """A layer on several shards, with consumers on all of them."""
    async with published(*(s.url for s in servers), **TOLD) as layer:
        names = [await layer.new_channel() for _ in range(20)]
        yield layer, Consumers(layer, names)


async def test_several_shards_are_one_outage(
    start_server: Callable[..., Server],
) -> None:
    servers = [start_server(), start_server()]
    async with consumers_on(servers) as (_, consumers):
        servers[0].kill()
        await eventually(lambda: consumers.all_got(GONE), "the first loss")
        servers[1].kill()
        servers[0].start()
        await eventually(lambda: subscribed(servers[0]), "one to be back")
        assert consumers.told() == {("gone",)}
        servers[1].start()
        await eventually(lambda: consumers.all_got(BACK), "both to be back")
        await consumers.aclose()
        assert consumers.told() == {("gone", "back")}


async def test_closing_the_pools_while_one_of_several_shards_is_away(
    start_server: Callable[..., Server],
) -> None:
    servers = [start_server(), start_server()]
    async with consumers_on(servers) as (layer, consumers):
        before, connections = subscribed(servers[0]), listeners(servers[0])
        servers[1].kill()
        await eventually(lambda: consumers.all_got(GONE), "the loss")
        await layer.close_pools()
        await eventually(
            lambda: (
                listeners(servers[0]).isdisjoint(connections)
                and subscribed(servers[0]) == before
            ),
            "the other one",
        )
        await layer.group_send("nobody", {})
        assert consumers.told() == {("gone",)}
        servers[1].start()
        await eventually(lambda: consumers.all_got(BACK), "both to be back")
        await consumers.aclose()
        assert consumers.told() == {("gone", "back")}


async def test_a_deaf_connection_is_replaced(
    server: Server, start_proxy: Callable[..., Proxy]
) -> None:
    proxy = start_proxy(server)
    async with published(proxy.url, command_timeout=0.3, **TOLD) as layer:
        name = await layer.new_channel()
        consumers = Consumers(layer, [name])
        proxy.replies.hold()
        await eventually(lambda: consumers.all_got(GONE), "the watchdog")
        proxy.replies.release()
        await eventually(lambda: consumers.all_got(BACK), "the return")
        server.client().publish(name, b"\x81\xa1n\x01")
        await eventually(lambda: consumers.all_got({"n": 1}), "a message")
        await consumers.aclose()
        assert consumers.told() == {("gone", "back")}


async def test_a_full_output_buffer(
    server: Server, start_proxy: Callable[..., Proxy]
) -> None:
    server.client().config_set("client-output-buffer-limit", "pubsub 1mb 1mb 1")
    proxy = start_proxy(server)
    async with published(proxy.url, capacity=1_000, **TOLD) as layer:
        name = await layer.new_channel()
        consumers = Consumers(layer, [name])
        proxy.replies.hold()
        payload = b"\x81\xa1x\xc6\x00\x10\x00\x00" + bytes(1 << 20)

        def is_killed() -> bool:
            return server.client().publish(name, payload) == 0

        await eventually(is_killed, "the server to give the subscriber up")
        proxy.replies.release()
        await eventually(lambda: consumers.all_got(BACK), "the return", timeout=20)
        await layer.send(name, {"n": 1})
        await eventually(lambda: consumers.all_got({"n": 1}), "a message")
        await consumers.aclose()
        assert consumers.told() == {("gone", "back")}


async def test_joins_while_connections_break(
    server: Server, start_proxy: Callable[..., Proxy]
) -> None:
    proxy = start_proxy(server)
    async with published(proxy.url, **TOLD) as layer:
        name = await layer.new_channel()
        joined = set()
        for n in range(50):
            if n % 5 == 0:
                proxy.cut(reset=n % 2 == 0)
            try:
                await layer.group_add(f"room{n}", name)
                joined.add(f"asgi__group__room{n}")
            except errors.ConnectionError:
                await asyncio.sleep(0.05)
        assert joined
        await eventually(lambda: subscribed(server) == joined | {name}, "just these")


async def test_sentinels_name_another_primary() -> None:
    with SentinelSet() as sentinels:
        async with published(sentinels.host, **TOLD) as layer:
            name = await layer.new_channel()
            await layer.group_add("room", name)
            consumers = Consumers(layer, [name])
            await asyncio.to_thread(sentinels.failover)
            await eventually(lambda: consumers.all_got(BACK), "the return", timeout=30)

            await insist(layer.group_send, "room", {"n": 1})
            await eventually(lambda: consumers.all_got({"n": 1}), "a message")
            await consumers.aclose()
            assert subscribers(sentinels.primary, name) == 1


async def test_a_refused_join_takes_no_group_from_others(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(password="first")
    admin = server.client()
    async with published(server.url, **TOLD, command_timeout=0.5) as layer:
        first, second = [await layer.new_channel() for _ in range(2)]
        await layer.group_add("room", first)
        admin.config_set("requirepass", "second")
        admin.client_kill_filter(_type="pubsub")
        assert await soon(layer, first) == GONE
        for channel in second, first:
            with pytest.raises(errors.AuthenticationError):
                await layer.group_add("room", channel)
        admin.config_set("requirepass", "first")
        assert await soon(layer, first) == BACK
        assert subscribers(server, "asgi__group__room") == 1
        await insist(layer.group_send, "room", {"n": 1})
        assert await soon(layer, first) == {"n": 1}
        assert await soon(layer, second) == GONE
        assert await soon(layer, second) == BACK
        await layer.group_add("room", second)  # it had not joined
        await layer.group_send("room", {"n": 2})
        assert await soon(layer, second) == {"n": 2}


async def test_a_name_that_was_refused_for_a_while(server: Server) -> None:
    """By the server's rules, which change while it is subscribed."""
    admin = server.client()
    rights = ["on", "nopass", "~*", "+@all", "resetchannels"]
    admin.execute_command("ACL SETUSER", "site", *rights, "&*")
    host = f"redis://site:x@127.0.0.1:{server.port}"
    async with published(host, **TOLD) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        # Redis ends the connections of those whose channels are allowed no more.
        admin.execute_command("ACL SETUSER", "site", *rights, "&asgispecific*")
        assert [await soon(layer, name) for _ in range(2)] == [GONE, BACK]
        assert not subscribers(server, "asgi__group__room")
        admin.execute_command("ACL SETUSER", "site", *rights, "&*")
        await eventually(lambda: subscribers(server, "asgi__group__room"), "the group")
        await layer.group_send("room", {"n": 1})
        assert await soon(layer, name) == {"n": 1}
