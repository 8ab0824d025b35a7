"""Options, names, messages and payloads that a Pub/Sub layer can't work with."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest
from channels.exceptions import MessageTooLarge

from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.exceptions import (
    ForeignChannel,
    InvalidMessage,
    InvalidName,
    InvalidSetting,
)
from channels_redis_fast.pubsub import RedisPubSubChannelLayer as Layer
from channels_redis_fast.serializers import JSONSerializer, registry
from support.layers import nothing, soon
from support.polling import eventually
from support.pubsubs import published, subscribed
from support.servers import Server

HEX = "0123456789abcdef" * 2


@pytest.fixture
async def layer(valkey: Server) -> AsyncIterator[Layer]:
    async with published(valkey.url) as layer:
        yield layer


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"capacity": -1}, "capacity"),
        ({"capacity": "many"}, "capacity"),
        ({"expiry": 0}, "expiry"),
        ({"group_expiry": "day"}, "group_expiry"),
        ({"normal_channels": "all"}, "'all'"),
        ({"normal_channels": "broadcast", "prefetch": 3}, "prefetch.*broadcast.*: 3"),
        ({"on_disconnect": 1}, "on_disconnect"),
        ({"on_reconnect": ""}, "on_reconnect"),
        ({"prefix": b"asgi"}, "prefix"),
        ({"command_timeout": 0}, "command_timeout"),
        ({"max_message_size": 0}, "max_message_size"),
        ({"confirm_sends": None}, "confirm_sends"),
        ({"hosts": "redis://localhost"}, "hosts"),
        ({"symmetric_encryption_keys": []}, "symmetric_encryption_keys"),
    ],
    ids=repr,
)
def test_wrong_options(options: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidSetting, match=word):
        Layer(**options)


def test_unknown_options() -> None:
    with pytest.raises(TypeError, match=r"'normal_chanels'.*'normal_channels'"):
        Layer(normal_chanels="single")
    with pytest.raises(TypeError, match="random_prefix_length"):
        Layer(random_prefix_length=12)


def test_options_by_position_are_the_incumbent_s() -> None:
    layer = Layer([("localhost", 1)], "other", "gone", "back")
    assert (layer.prefix, layer.on_disconnect, layer.on_reconnect) == (
        "other",
        "gone",
        "back",
    )


@pytest.mark.parametrize(
    "name", ["", "a b", "abc\n", "x" * 101, "a!b!c", "é", b"asgi", None, 7, ["a"]]
)
async def test_bad_names(layer: Layer, name: Any) -> None:
    for call in (
        functools.partial(layer.send, name, {"type": "t"}),
        functools.partial(layer.receive, name),
        functools.partial(layer.group_add, "room", name),
        functools.partial(layer.group_add, name, "worker"),
        functools.partial(layer.group_discard, "room", name),
        functools.partial(layer.group_discard, name, "worker"),
        functools.partial(layer.group_send, name, {"type": "t"}),
    ):
        with pytest.raises(InvalidName):
            await call()


@pytest.mark.parametrize("prefix", ["a b", "x" * 69, "__group__", "é"])
async def test_bad_prefixes_of_new_channels(layer: Layer, prefix: str) -> None:
    with pytest.raises(InvalidName):
        await layer.new_channel(prefix)
    assert len(layer._mailboxes) == 0


async def test_names_of_groups_are_no_channels(layer: Layer) -> None:
    name = f"asgi__group__{HEX}"
    with pytest.raises(InvalidName, match="__group__"):
        await layer.send(name, {})
    with pytest.raises(InvalidName, match="__group__"):
        await layer.receive(name)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(None, id="None"),
        pytest.param("text", id="str"),
        pytest.param([], id="list"),
        pytest.param({"__asgi_channel__": "x"}, id="reserved key"),
        pytest.param({"x": object()}, id="object"),
        pytest.param({"x": 2**64}, id="int over 64 bits"),
    ],
)
async def test_bad_messages(layer: Layer, message: Any) -> None:
    name = await layer.new_channel()
    await layer.group_add("room", name)
    for call in (
        layer.send(name, message),
        layer.send("worker", message),
        layer.group_send("room", message),
    ):
        with pytest.raises(InvalidMessage):
            await call
    assert await nothing(layer, name)


async def test_a_message_that_is_too_big(valkey: Server, layer: Layer) -> None:
    async with published(valkey.url, max_message_size=1_000) as small:
        name = await small.new_channel()
        with pytest.raises(MessageTooLarge, match="max_message_size"):
            await small.send(name, {"text": "x" * 1_000})
        await layer.send(name, {"text": "x" * 1_000})
        assert await nothing(small, name)
        assert small.counters == {"unreadable": 1}


@pytest.mark.parametrize(
    "name", [f"specific.{HEX}!{HEX}", f"chat.{HEX}!{HEX}", f"otherspecific.{HEX}"]
)
async def test_channels_of_other_layers(layer: Layer, name: str) -> None:
    with pytest.raises(ForeignChannel, match="another layer"):
        await layer.receive(name)


async def test_channels_of_a_core_layer(layer: Layer, valkey: Server) -> None:
    core = RedisChannelLayer(hosts=[valkey.url])
    for _ in range(20):  # other letters each time
        with pytest.raises(ForeignChannel, match="another layer"):
            await layer.receive(await core.new_channel("chat"))
    await core.close_pools()


async def test_a_name_of_ours_that_nobody_holds(layer: Layer, valkey: Server) -> None:
    name = f"asgispecific.{HEX}"
    waiting = asyncio.create_task(soon(layer, name))
    await eventually(lambda: subscribed(valkey) == {name}, "the subscription")
    await layer.send(name, {"n": 1})
    assert await waiting == {"n": 1}


async def test_groups_are_for_channels_of_this_process(
    layer: Layer, valkey: Server
) -> None:
    async with published(valkey.url) as other:
        for name in await other.new_channel(), "worker", f"asgispecific.{HEX}":
            with pytest.raises(RuntimeError, match="new_channel") as caught:
                await layer.group_add("room", name)
            assert name in str(caught.value)
            assert "self.channel_name" in str(caught.value)
            await layer.group_discard("room", name)
        assert "asgi__group__room" not in subscribed(valkey)


JUNK = {
    "empty": b"",
    "text": b"hello",
    "a number": msgpack.packb(1),
    "a list": msgpack.packb([1]),
    "half a map": msgpack.packb({"type": "t"})[:-1],
    "two maps": msgpack.packb({"type": "t"}) * 2,
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize(
    "options",
    [{}, {"serializer_format": "json"}, {"symmetric_encryption_keys": ["key"]}],
    ids=["msgpack", "json", "encrypted"],
)
async def test_payloads_that_we_did_not_write(
    valkey: Server, junk: bytes, options: dict[str, Any]
) -> None:
    async with published(valkey.url, **options) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        for place in name, "asgi__group__room":
            assert valkey.client().publish(place, junk) == 1
        await layer.group_send("room", {"n": 1})
        assert await soon(layer, name) == {"n": 1}
        assert layer.counters == {"unreadable": 2}


async def test_keys(valkey: Server) -> None:
    keys = [["new", "old"], ["old"], ["other"]]
    async with (
        published(valkey.url, symmetric_encryption_keys=keys[0]) as both,
        published(valkey.url, symmetric_encryption_keys=keys[1]) as old,
        published(valkey.url, symmetric_encryption_keys=keys[2]) as other,
    ):
        name = await both.new_channel()
        await other.send(name, {"n": 0})
        await old.send(name, {"n": 1})
        await both.send(name, {"n": 2})
        assert [await soon(both, name) for _ in range(2)] == [{"n": 1}, {"n": 2}]
        assert both.counters == {"unreadable": 1}
        await old.send("worker", {"n": 3})
        assert await soon(both, "worker") == {"n": 3}


class Shouting(Layer):
    """Overrides both hooks."""

    def serialize(self, message: dict[str, Any]) -> bytes:
        return str(message["text"]).upper().encode()

    def deserialize(self, message: bytes) -> dict[str, Any]:
        return {"text": message.decode()}


async def test_overridden_serialisers(valkey: Server) -> None:
    layer = Shouting(hosts=[valkey.url])
    name = await layer.new_channel()
    for channel in name, "worker":
        for _ in range(2):  # equal messages are two
            await layer.send(channel, {"text": "hello"})
        for _ in range(2):
            assert await soon(layer, channel) == {"text": "HELLO"}
    await layer.close_pools()


class Plain:
    """A format that knows nothing of ours but the keys."""

    def __init__(self, symmetric_encryption_keys: Any = None) -> None:
        pass

    def serialize(self, message: Any) -> bytes:
        return repr(message).encode()

    def deserialize(self, message: bytes) -> Any:
        return {"text": message.decode()}


@pytest.mark.parametrize("made", [Plain, JSONSerializer])
async def test_registered_formats(
    valkey: Server, made: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._registry, "made", made)
    async with published(valkey.url, serializer_format="made") as layer:
        name = await layer.new_channel()
        for channel in name, "worker":
            for _ in range(2):
                await layer.send(channel, {"n": 1})
            for _ in range(2):
                got = await soon(layer, channel)
                assert got == ({"n": 1} if made is not Plain else {"text": "{'n': 1}"})


async def test_a_waiter_is_told_of_a_refusal(start_server: Any) -> None:
    users = ["small on >pw resetchannels &asgi__group__* ~* +@all"]
    server = start_server(users=users)
    host = {"address": server.url, "username": "small", "password": "pw"}
    async with published(host) as layer:
        for call in layer.new_channel(), layer.receive(f"asgispecific.{HEX}"):
            with pytest.raises(Exception, match=r"(?i)permission"):
                await asyncio.wait_for(call, 10)
        assert len(layer._table) == 0
