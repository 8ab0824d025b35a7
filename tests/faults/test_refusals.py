"""Servers that refuse, and messages that can't be read: each is said, all goes on."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import msgpack
import pytest
from redis import exceptions as errors

from channels_redis_fast.client.shard import Shard
from channels_redis_fast.commands.errors import may_pass
from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.exceptions import InvalidSetting
from support import programs
from support.behaviours import BEHAVIOURS, until_it_works
from support.layers import opened, soon
from support.refusals import Refusal, no_disk, no_replica
from support.servers import Server

# Servers without what we need, whatever their version: they say why themselves


async def test_a_server_without_our_commands(
    start_server: Callable[..., Server],
) -> None:
    gone = [f'{command} ""' for command in ("BZPOPMIN", "ZPOPMIN")]
    server = start_server(options={"rename-command": gone})
    async with opened(server.url) as layer:
        name = await layer.new_channel()
        for channel in (name, "worker"):
            with pytest.raises(errors.ResponseError, match="unknown command"):
                await soon(layer, channel)


async def test_a_server_whose_scripts_may_not_ask_for_the_time(
    start_server: Callable[..., Server],
) -> None:
    """As Redis before 5.0, which replicated scripts and not their effects."""
    server = start_server(programs.redis62(), options={"lua-replicate-commands": "no"})
    async with opened(server.url) as layer:
        name = await layer.new_channel()
        for call in (
            layer.send(name, {}),
            layer.send("worker", {}),
            layer.group_add("room", name),
        ):
            with pytest.raises(
                errors.ResponseError, match="non deterministic commands"
            ):
                await call


# Servers that refuse


def no_permission(server: Server) -> Iterator[None]:
    """The user may not do anything any more."""
    admin = server.client()
    admin.execute_command("ACL", "SETUSER", "alice", "nocommands")
    yield
    admin.execute_command("ACL", "SETUSER", "alice", "allcommands")


def no_zadd(server: Server) -> Iterator[None]:
    """The user may not do one of the things that scripts do, and may not read."""
    admin = server.client()
    admin.execute_command("ACL", "SETUSER", "alice", "-zadd", "-bzpopmin")
    yield
    admin.execute_command("ACL", "SETUSER", "alice", "+zadd", "+bzpopmin")


def no_keys(server: Server) -> Iterator[None]:
    """The user may not touch the prefix's keys any more."""
    admin = server.client()
    admin.execute_command("ACL", "SETUSER", "alice", "resetkeys", "~other*")
    yield
    admin.execute_command("ACL", "SETUSER", "alice", "~asgi*")


def no_user(server: Server) -> Iterator[None]:
    """The user is gone, and with it its connections."""
    admin = server.client()
    admin.acl_deluser("alice")
    yield
    admin.execute_command("ACL", "SETUSER", *ALICE.split())


def no_memory(server: Server) -> Iterator[None]:
    """The server's memory is full."""
    admin = server.client()
    admin.config_set("maxmemory", 1)
    yield
    admin.config_set("maxmemory", 0)


ALICE = "alice on >secret resetchannels ~asgi* &asgi* +@all"
# How each is brought about, what is raised, and what it says.
REFUSALS: dict[str, tuple[Refusal, type[Exception], str]] = {
    "NOPERM": (no_permission, errors.NoPermissionError, "NOPERM|permission"),
    "NOPERM keys": (no_keys, errors.NoPermissionError, "NOPERM|permission"),
    "NOPERM in a script": (no_zadd, errors.ResponseError, "permission|can.t run"),
    "WRONGPASS": (no_user, errors.AuthenticationError, "username-password"),
    "MISCONF": (no_disk, errors.ResponseError, "MISCONF"),
    "OOM": (no_memory, errors.OutOfMemoryError, "OOM"),
    "NOREPLICAS": (no_replica, errors.ResponseError, "NOREPLICAS"),
}


@pytest.fixture(
    params=[programs.valkey, pytest.param(programs.redis62, marks=pytest.mark.slow)]
)
def binary(request: pytest.FixtureRequest) -> str:
    """A new server, and an old one, which words errors of scripts differently."""
    return str(request.param())


@pytest.mark.parametrize(("refusal", "kind", "text"), REFUSALS.values(), ids=REFUSALS)
async def test_a_server_that_refuses(
    start_server: Callable[..., Server],
    binary: str,
    refusal: Refusal,
    kind: type[Exception],
    text: str,
) -> None:
    server = start_server(binary, users=[ALICE])
    address = f"redis://alice:secret@{server.host}:{server.port}"
    options = {"command_timeout": 1.0}
    async with opened(address, **options) as one, opened(address, **options) as other:
        name = await one.new_channel()
        await one.group_add("room", name)
        await one.group_add("room", "worker")
        await one.send(name, {"n": 1})
        assert await soon(one, name) == {"n": 1}
        steps = refusal(server)
        next(steps)
        calls: dict[str, tuple[Any, ...]] = {
            "send": (name, {}),
            "group_add": ("other", name),
            "group_send": ("room", {}),
        }
        if not may_pass(kind(text)):  # else it waits, or frees memory
            calls["receive"] = ("worker",)
        for method, arguments in calls.items():
            error = await refused(getattr(one, method), *arguments)
            assert isinstance(error, kind), method
            assert re.search(text, str(error))
            assert "secret" not in str(error)
        for _ in steps:
            pass
        for layer in one, other:
            await until_it_works(layer)
        await one.flush()
        for behaviour in BEHAVIOURS.values():
            await behaviour(one, other)


async def refused(call: Callable[..., Any], *arguments: Any) -> errors.RedisError:
    """The error that Redis answers, also when it first ends the connection."""
    while True:
        with pytest.raises(errors.RedisError) as caught:
            await asyncio.wait_for(call(*arguments), 10)
        if type(caught.value) is not errors.ConnectionError:
            return caught.value
        await asyncio.sleep(0.01)


async def test_a_consumer_that_waits_hears_of_it(
    start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits already is told when Redis ends his wait, and may wait again."""
    monkeypatch.setattr(Shard, "wait", 1.0)
    server = start_server(users=[ALICE])
    async with opened(f"redis://alice:secret@{server.host}:{server.port}") as layer:
        name = await layer.new_channel()
        waiting = [asyncio.create_task(soon(layer, c)) for c in (name, "worker")]
        await until_it_works(layer)
        steps = no_permission(server)
        next(steps)
        for task in waiting:
            with pytest.raises(errors.NoPermissionError):
                await task
        for _ in steps:
            pass
        for channel in name, "worker":
            await layer.send(channel, {"n": 1})
            assert await soon(layer, channel) == {"n": 1}


# Messages that can't be read

UNIQUE = bytes(12)
UNREADABLE = {
    "nothing": b"",
    "too short": b"short",
    "no body": UNIQUE,
    "no msgpack": UNIQUE + b"\xc1\xc1",
    "JSON": UNIQUE + b'{"type": "t"}',
    "no map": UNIQUE + msgpack.packb([1, 2]),
    "cut short": UNIQUE + msgpack.packb({"type": "x" * 50})[:-1],
    "too long": UNIQUE + msgpack.packb({"type": "t"}) + b"x",
}


@pytest.fixture(params=["process channel", "normal channel"])
async def channel(
    request: pytest.FixtureRequest, valkey: Server
) -> AsyncIterator[tuple[RedisChannelLayer, str, str]]:
    """A layer with a channel, and the channel's key."""
    async with opened(valkey.url) as layer:
        if request.param == "normal channel":
            yield layer, "worker", "asgiworker"
        else:
            name = await layer.new_channel()
            yield layer, name, f"asgi{name.split('!')[0]}!"


Channel = tuple[RedisChannelLayer, str, str]


@pytest.mark.parametrize("member", UNREADABLE.values(), ids=UNREADABLE)
async def test_an_unreadable_message(
    channel: Channel, valkey: Server, member: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await check_unreadable(channel, valkey, member, caplog)


@pytest.mark.slow
async def test_a_message_that_is_too_long_to_be_read(
    channel: Channel, valkey: Server, caplog: pytest.LogCaptureFixture
) -> None:
    content = {"type": "t", "bytes": bytes(100_000_000)}
    await check_unreadable(channel, valkey, UNIQUE + msgpack.packb(content), caplog)


async def check_unreadable(
    channel: Channel, valkey: Server, member: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    layer, name, key = channel
    waiting = asyncio.create_task(soon(layer, name, 20))
    valkey.client().zadd(key, {member: time.time()})
    await layer.send(name, {"n": 1})
    assert await waiting == {"n": 1}
    assert layer.counters == {"unreadable": 1}
    (line,) = [m for m in caplog.messages if "unreadable" in m]
    assert len(line) < 1000


async def test_many_unreadable_messages(
    channel: Channel, valkey: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is counted; the log has one line."""
    layer, name, key = channel
    for start in range(0, 400, 50):
        members = {b"%d" % n: time.time() for n in range(start, start + 50)}
        valkey.client().zadd(key, members)
        await layer.send(name, {"n": start})
        assert await soon(layer, name) == {"n": start}
    assert layer.counters == {"unreadable": 400}
    assert len([m for m in caplog.messages if "unreadable" in m]) == 1


@pytest.mark.parametrize("format", ["msgpack", "json"])
@pytest.mark.parametrize("bad", [b"!\xff", b"\xff!name"])
async def test_names_that_are_no_text(valkey: Server, format: str, bad: bytes) -> None:
    """Others wrote them to the group; whoever shares a process with them loses none."""
    async with opened(valkey.url, serializer_format=format) as layer:
        names = [await layer.new_channel() for _ in range(3)]
        key, process = "asgi:group:room", names[0].split("!")[0].encode()
        members = [process + bad if bad[:1] == b"!" else bad, *names]
        now = time.time()
        valkey.client().zadd(key, dict.fromkeys(members, now))
        await layer.group_send("room", {"n": 1})
        await layer.group_send_many([("room", {"n": 2})])
        for name in names:
            assert [(await soon(layer, name))["n"] for _ in range(2)] == [1, 2]
        assert layer.counters == {}


async def test_an_unknown_key(valkey: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Also a message without encryption, and one for a layer without."""
    keys: list[list[str] | None] = [["the first"], ["the second"], None]
    async with AsyncExitStack() as stack:
        layers = [
            await stack.enter_async_context(
                opened(valkey.url, symmetric_encryption_keys=key)
            )
            for key in keys
        ]
        for layer in layers:
            name = await layer.new_channel()
            await layer.group_add("room", name)
            others = [other for other in layers if other is not layer]
            for other in others:
                await other.send(name, {"n": 1})
                await other.send("worker", {"n": 1})
                await other.group_send("room", {"n": 1})
            await layer.send(name, {"n": 2})
            await layer.send("worker", {"n": 2})
            await layer.group_send("room", {"n": 3})
            received = [await soon(layer, name) for _ in range(2)]
            assert [*received, await soon(layer, "worker")] == [
                {"n": 2},
                {"n": 3},
                {"n": 2},
            ]
            assert layer.counters == {"unreadable": 6}
            await layer.group_discard("room", name)
    assert not any("the first" in m or "the second" in m for m in caplog.messages)


async def test_a_message_larger_than_ours_may_be(valkey: Server) -> None:
    url, limit = valkey.url, {"max_message_size": 1000}
    async with opened(url, **limit) as layer, opened(url) as other:
        await other.send("worker", {"text": "x" * 1000})
        await other.send("worker", {"text": "x" * 900})
        assert await soon(layer, "worker") == {"text": "x" * 900}
        assert layer.counters == {"unreadable": 1}


# Malformed entries of `hosts` (more in test_bad_settings.py)

SECRET = "s3cret-word"
BAD_ENTRIES: dict[str, tuple[Any, str]] = {
    "address None": ({"address": None}, "address"),
    "address number": ({"address": 5}, "address"),
    "address argument": ({"address": "redis://one", "hosst": 1}, "argument 'hosst'"),
    "path number": ({"path": 5}, "path"),
    "path empty": ({"path": ""}, "path"),
    "master_name empty": ({"sentinels": [("h", 1)], "master_name": ""}, "master_name"),
    "master_name number": ({"sentinels": [("h", 1)], "master_name": 5}, "master_name"),
    "sentinel triple": (
        {"sentinels": [("one", 1, SECRET)], "master_name": "m"},
        "'one'.*pair",
    ),
    "sentinel argument": (
        {"sentinels": [("h", 1)], "master_name": "m", "sentinel_kwargs": {"hosst": 1}},
        "hosst",
    ),
    "URI as host": (
        (f"redis://:{SECRET}@one", 6379),
        "host must be a name.*one",
    ),
    "list of URI": ([f"redis://:{SECRET}@one"], "one"),
    "cluster of URIs": ({"cluster": [f"redis://:{SECRET}@one"]}, "one"),
    "cluster of dicts": ({"cluster": [{"host": "one", "port": 1}]}, "one.*pair"),
    "cluster argument": (
        {"cluster": [("one", 1)], "password": SECRET, "hosst": 1},
        "hosst",
    ),
    "cluster and Sentinel": (
        {"cluster": [("one", 1)], "sentinels": [("two", 2)], "master_name": "m"},
        "cluster.*sentinels|sentinels.*cluster",
    ),
}


@pytest.mark.parametrize(("entry", "named"), BAD_ENTRIES.values(), ids=BAD_ENTRIES)
def test_bad_entries(entry: Any, named: str) -> None:
    with pytest.raises(InvalidSetting, match=named) as caught:
        RedisChannelLayer(hosts=["redis://localhost", entry])
    assert SECRET not in str(caught.value)
