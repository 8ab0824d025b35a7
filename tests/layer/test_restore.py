"""What becomes of groups when Redis lost its data, or somebody took it away."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.runtime import restoration
from support.crowds import BACK, eventually_sent, lines
from support.layers import nothing, opened, soon
from support.polling import eventually
from support.proxy import Proxy
from support.servers import Server, kept

ROOM = "asgi:group:room"


async def reconnected(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Kills the layers' connections and waits until they are back."""
    before = lines(caplog)[BACK]
    server.client().client_kill_filter(_type="normal", skipme=True)
    await eventually(lambda: lines(caplog)[BACK] > before, "the log line")


def members(server: Server) -> set[str]:
    return {name.decode() for name in server.client().zrange(ROOM, 0, -1)}


async def in_room(layer: RedisChannelLayer, count: int) -> list[str]:
    """Names of new members."""
    names = [await layer.new_channel() for _ in range(count)]
    for name in names:
        await layer.group_add("room", name)
    return names


async def test_all_gone(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(server.url) as layer, opened(server.url) as other:
        ours, theirs = await in_room(layer, 3), await in_room(other, 3)
        await layer.group_discard("room", ours[2])
        await other.group_add("room", ours[2])  # theirs to heal, and they don't
        for group in "first", "second":
            await layer.group_add(group, ours[0])
        server.restart(empty=True)
        await eventually(lambda: lines(caplog)[BACK] == 2, "the log lines")
        assert members(server) == {*ours[:2], *theirs}
        for group in "first", "second":
            await other.group_send(group, {"group": group})
            assert await soon(layer, ours[0]) == {"group": group}
        ttl = server.client().ttl(ROOM)
        assert layer.group_expiry - 10 < ttl <= layer.group_expiry


@pytest.mark.parametrize("recent", [True, False], ids=["recent", "old"])
async def test_some_there(
    server: Server,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    recent: bool,
) -> None:
    """After a failover: what the new primary was not told yet is made good."""
    monkeypatch.setattr(restoration, "_RECENT", 30.0 if recent else 0.0)
    async with opened(server.url) as layer:
        first, second, third = await in_room(layer, 3)
        await layer.group_discard("room", third)
        client = server.client()
        client.save()
        client.zrem(ROOM, second)
        client.config_set("save", "")
        server.restart(empty=False)
        await eventually(lambda: lines(caplog)[BACK], "the log line")
        assert members(server) == ({first, second} if recent else {first})


async def test_what_others_took_away_stays_gone(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A cut is no loss of data: not even the one member of a process comes back."""
    async with opened(server.url) as layer, opened(server.url) as other:
        (name,) = await in_room(layer, 1)
        await other.group_discard("room", name)
        await reconnected(server, caplog)
        await layer.group_send("room", {"n": 1})
        assert await nothing(layer, name)
        assert not server.client().exists(ROOM)


@pytest.mark.parametrize("how", ["flush", "FLUSHALL"])
async def test_what_others_flushed_stays_gone(
    server: Server, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    async with (
        opened(server.url, group_expiry=1) as layer,
        opened(server.url) as other,
    ):
        names = await in_room(layer, 3)
        await (other.flush() if how == "flush" else _flushall(server))
        await reconnected(server, caplog)
        await asyncio.sleep(1)  # in which living members are refreshed
        assert not server.client().exists(ROOM)
        await layer.group_add("room", names[0])
        assert members(server) == {names[0]}


async def _flushall(server: Server) -> None:
    server.client().flushall()


async def test_what_was_discarded_stays_gone(server: Server) -> None:
    async with opened(server.url) as layer:
        name, gone = await in_room(layer, 2)
        await layer.group_discard("room", gone)
        server.restart(empty=True)
        await eventually_sent(layer, name, {"n": 0})
        assert members(server) == {name}


async def test_own_flush_is_for_good(server: Server) -> None:
    async with opened(server.url) as layer:
        (name,) = await in_room(layer, 1)
        await layer.flush()
        server.restart(empty=True)
        await eventually_sent(layer, name, {"n": 0})
        assert not members(server)


async def test_a_call_that_failed_changes_nothing(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(server.url) as layer:
        (name,) = await in_room(layer, 1)
        server.kill()
        for call in layer.group_add, layer.group_discard:
            with pytest.raises(Exception, match="onnect"):
                await call("room", name)
        with pytest.raises(Exception, match="onnect"):
            await layer.group_add("other", name)
        server.start()
        await eventually(lambda: lines(caplog)[BACK], "the log line")
        assert members(server) == {name}
        assert not server.client().exists("asgi:group:other")


async def test_who_ended_meanwhile_leaves(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Consumers that end while Redis is away are out of their groups afterwards."""
    async with opened(server.url, expiry=0.2) as layer:
        names = await in_room(layer, 3)
        server.client().save()
        server.kill()
        del names[1:]
        gc.collect()
        await eventually(lambda: len(layer._mailboxes) == 1, "the channels to end")
        await asyncio.sleep(0.2)
        server.start(empty=False)
        await eventually(lambda: lines(caplog)[BACK], "the log line")
        await eventually(lambda: members(server) == {*names}, "the members to go")


async def test_who_may_have_joined_leaves(server: Server) -> None:
    """A call that failed may have had its effect, which ends with the channel."""
    with Proxy(server) as proxy:
        async with opened(proxy.url, expiry=0.2) as layer:
            name = await layer.new_channel()
            await layer.group_add("other", name)  # Redis knows the script after that
            proxy.replies.hold()
            joining = asyncio.create_task(layer.group_add("room", name))
            await eventually(lambda: members(server), "the call to have its effect")
            proxy.refuse()
            proxy.cut()
            with pytest.raises(errors.ConnectionError):
                await joining
            proxy.replies.release()
            proxy.accept()
            del name, joining

            def is_gone() -> bool:
                gc.collect()  # the error may hold the name for a while
                return not members(server)

            await eventually(is_gone, "the member to go")


async def test_who_joins_while_leaving(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls at the same time count in their order."""
    async with opened(server.url, expiry=0.2) as layer:
        (name,) = await in_room(layer, 1)
        leave, join = layer.group_discard, layer.group_add
        await asyncio.gather(leave("room", name), join("room", name))
        server.restart(empty=True)
        await eventually(lambda: lines(caplog)[BACK], "the log line")
        assert members(server) == {name}
        await asyncio.gather(join("room", name), leave("room", name))
        server.restart(empty=True)
        await eventually(lambda: lines(caplog)[BACK] == 2, "the log line")
        assert not members(server)
        await join("room", name)
        await leave("room", name)
        assert not len(layer._memberships)  # nothing to be given up
        await asyncio.gather(leave("room", name), join("room", name))
        del name
        gc.collect()
        await eventually(lambda: not members(server), "the member to go")


async def test_before_what_waits(server: Server) -> None:
    """Groups are whole again before the first message that they get."""
    async with opened(server.url) as layer:
        names = await in_room(layer, 50)
        for n in range(5):
            server.restart(empty=True)
            while True:
                try:
                    await layer.group_send("room", {"n": n})
                except Exception:
                    await asyncio.sleep(0)
                else:
                    break
            for name in names:
                assert await soon(layer, name) == {"n": n}


async def test_on_several_hosts(
    start_server: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    servers = [start_server() for _ in range(3)]
    async with opened(*(server.url for server in servers)) as layer:
        name = await layer.new_channel()
        groups = [f"group{i}" for i in range(30)]
        for group in groups:
            await layer.group_add(group, name)
        sizes = [len(kept(server.client())) for server in servers]
        assert all(sizes)
        servers[1].restart(empty=True)
        await eventually(lambda: lines(caplog)[BACK], "the log line")
        assert [len(kept(server.client())) for server in servers] == sizes
        for group in groups:
            await layer.group_send(group, {"group": group})
        got: list[Any] = [await soon(layer, name) for _ in groups]
        assert {message["group"] for message in got} == {*groups}


async def test_a_membership_made_while_another_is_given_up(valkey: Server) -> None:
    """The channel ended and was opened again, by a copy of its name."""
    memberships = RedisChannelLayer(hosts=[valkey.url])._memberships
    with memberships.joining("room", "name"):
        pass
    memberships.end("name")

    async def joined_meanwhile(requests: Any) -> Any:
        with memberships.joining("room", "name"):
            pass
        raise errors.ConnectionError

    with pytest.raises(errors.ConnectionError):
        await memberships.tend(joined_meanwhile)
    assert not memberships._left


@pytest.mark.parametrize("way", ["awaited", "blocking"])
async def test_a_switch_that_cuts_no_connection(
    server: Server, start_server: Callable[..., Server], way: str
) -> None:
    """A process that only receives follows; its members are put back there."""
    primary = start_server()
    with Proxy(server) as proxy:
        async with opened(proxy.url) as layer, opened(primary.url) as other:
            (name,) = await in_room(layer, 1)
            receiving = (
                soon(layer, name)
                if way == "awaited"
                else asyncio.to_thread(layer.sync.receive, name, 20)
            )
            waiting = asyncio.ensure_future(receiving)
            await eventually(lambda: is_waited_at(server), "the wait")
            proxy.target = primary
            server.client().replicaof(primary.host, primary.port)
            await eventually(lambda: members(primary) == {name}, "the member")
            await other.group_send("room", {"n": 1})
            assert await waiting == {"n": 1}
            layer.sync.close()


def is_waited_at(server: Server) -> bool:
    """Whether somebody waits there for messages."""
    return any("b" in one["flags"] for one in server.clients())
