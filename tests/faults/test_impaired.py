"""Redis answers, but not as it should: a replica, while it loads, without memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.runtime.unconfirmed import FAILED
from support.crowds import GONE, Crowd, Sender, eventually_sent, lines
from support.layers import end, opened, soon
from support.polling import eventually
from support.refusing import RefusingProxy
from support.servers import Server, free_port


async def test_a_replica_answers(
    start_server: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    primary, other = start_server(), start_server()
    client = primary.client()
    async with (
        opened(primary.url, command_timeout=0.3) as layer,
        Crowd(layer, 20) as crowd,
        Sender(layer) as sender,
    ):
        await sender.accepts(5)
        client.replicaof(other.host, other.port)
        await eventually(lambda: sender.errors["ReadOnlyError"], "a refusal")
        before = client.info("stats")["total_connections_received"]
        await asyncio.sleep(1.5)
        client.replicaof("NO", "ONE")
        connections = client.info("stats")["total_connections_received"] - before
        said = lines(caplog)
        await sender.accepts(5)
        back = sender.number
        await sender.accepts(30)
        await eventually(lambda: crowd.all_got(sender.since(back)), "the messages")
        crowd.check()
    # It looks again, with back-off, and doesn't fill the log meanwhile.
    assert 2 <= connections <= 2 * 10
    assert said[GONE] <= 10


async def test_who_waits_at_a_replica_fills_no_log(
    start_server: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    """However often it is asked again: one line."""
    primary, replica = start_server(), start_server()
    client = replica.client()
    client.replicaof(primary.host, primary.port)
    async with opened(replica.url) as layer:
        names = await layer.new_channel(), "worker"
        waiting = [asyncio.create_task(layer.receive(name)) for name in names]

        def connections() -> int:
            return int(client.info("stats")["total_connections_received"])

        enough = connections() + 10
        await eventually(lambda: connections() > enough, "several attempts")
        assert len(caplog.records) == 1, caplog.messages
        await end(*waiting)


async def test_a_replica_that_was_a_primary_a_moment_ago(
    start_server: Callable[..., Server],
) -> None:
    """A call waits for the next one, also where a reader saw the switch first."""
    primary, other = start_server(), start_server()
    client = primary.client()
    async with opened(primary.url, command_timeout=5) as layer:
        name = await layer.new_channel()
        waiting = asyncio.create_task(soon(layer, name, 20))
        await layer.send("worker", {"n": 1})
        client.replicaof(other.host, other.port)
        sending = asyncio.create_task(layer.send(name, {"n": 2}))
        # Longer than a server is waited for that never was a primary.
        await asyncio.wait([sending], timeout=1.5)
        client.replicaof("NO", "ONE")
        await sending
        assert await waiting == {"n": 2}


async def test_a_server_that_loads(start_server: Callable[..., Server]) -> None:
    slow = {"loading-process-events-interval-bytes": 1024, "key-load-delay": 200}
    server = start_server(options=slow)
    async with opened(server.url) as layer:
        name = await layer.new_channel()
        waiting = asyncio.create_task(soon(layer, name, 30))
        await layer.send("worker", {"n": 1})
        server.client().mset({f"key{i}": "x" * 1000 for i in range(5_000)})
        await asyncio.to_thread(server.restart, empty=False)
        assert server.client().info("persistence")["loading"]
        await eventually_sent(layer, name, {"n": 2})  # which waits for the data
        assert not server.client().info("persistence")["loading"]
        assert await waiting == {"n": 2}
        assert await soon(layer, "worker") == {"n": 1}


async def test_no_memory_left(server: Server) -> None:
    client = server.client()
    async with opened(server.url) as layer:
        name = await layer.new_channel()
        waiting = asyncio.create_task(soon(layer, name))
        await layer.send("worker", {"n": 1})
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        for call in (
            layer.send(name, {"n": 2}),
            layer.group_add("room", name),
        ):
            with pytest.raises(errors.OutOfMemoryError):
                await call
        assert await soon(layer, "worker") == {"n": 1}  # reading frees memory
        client.config_set("maxmemory", 0)
        await layer.send(name, {"n": 3})
        assert await waiting == {"n": 3}


async def test_what_a_server_wont_have_is_asked_for_now_and_then(
    server: Server,
) -> None:
    """A wrong type, a missing right: an error to who waits, and no storm."""
    client = server.client()
    async with opened(server.url) as layer:
        name = await layer.new_channel()
        key = f"asgi{name.partition('!')[0]}!"
        client.set(key, "not a sorted set")
        with pytest.raises(errors.ResponseError, match="WRONGTYPE"):
            await soon(layer, name)
        before = client.info("stats")["total_commands_processed"]
        await asyncio.sleep(0.5)
        assert client.info("stats")["total_commands_processed"] - before < 20
        client.delete(key)
        await layer.send(name, {"n": 1})
        assert await soon(layer, name) == {"n": 1}


async def test_a_reader_that_a_busy_server_greets(valkey: Server) -> None:
    """It can still end its waits, which it does by the id that the server tells."""
    with RefusingProxy(valkey) as proxy:
        async with opened(proxy.url) as layer:
            await layer.send("other", {})
            with proxy.refusing("BUSY a script runs.", frozenset((b"CLIENT",))):
                waiting = asyncio.create_task(layer.receive("worker"))
                # redis-py says by two of these what it is.
                await eventually(lambda: proxy.requests.refused > 2, "a refusal")
            (reader,) = layer._loops.engine()._channels["worker"]._readers
            await eventually(lambda: reader.waiting_client, "a wait that can be ended")
            await end(waiting)


async def test_the_members_that_a_replica_has_are_no_answer(
    start_server: Callable[..., Server],
) -> None:
    """It may know fewer than its primary: also who asks again soon is told."""
    server = start_server()
    server.client().replicaof(server.host, free_port())
    message: dict[str, Any] = {}
    async with opened(server.url, command_timeout=0.2) as layer:
        for _ in range(2):
            with pytest.raises(errors.ReadOnlyError):
                await layer.group_send("room", message)
            (outcome,) = await layer.group_send_many([("room", message)])
            assert isinstance(outcome, errors.ReadOnlyError)
            with pytest.raises(errors.ReadOnlyError):
                await asyncio.to_thread(layer.sync.group_send, "room", message)
    async with opened(server.url, confirm_sends=False, command_timeout=0.2) as layer:
        for count in 1, 2:
            await layer.group_send("room", message)
            await layer.flush_sends()
            assert layer.counters == {FAILED: count}
