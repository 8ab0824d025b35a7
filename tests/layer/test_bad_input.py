"""Bad input gets an error that names it, leaves nothing behind, and breaks nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.core import RedisChannelLayer
from support.layers import nothing, opened, soon
from support.servers import Server, free_port, kept

FORMATS = ["msgpack", "json"]


@pytest.fixture(params=FORMATS)
async def layer(
    request: pytest.FixtureRequest, valkey: Server
) -> AsyncIterator[RedisChannelLayer]:
    async with opened(valkey.url, serializer_format=request.param) as layer:
        yield layer


async def works(layer: RedisChannelLayer) -> None:
    """The layer does its job."""
    name = await layer.new_channel()
    await layer.group_add("still", name)
    await layer.send(name, {"type": "t"})
    await layer.group_send("still", {"type": "u"})
    assert [await soon(layer, name) for _ in range(2)] == [{"type": "t"}, {"type": "u"}]
    await layer.group_discard("still", name)


# Messages

_circular: dict[str, Any] = {}
_circular["self"] = _circular

NO_DICTS: dict[str, tuple[Any, str]] = {
    "None": (None, "None"),
    "str": ("some text", "some text"),
    "bytes": (b"some bytes", "some bytes"),
    "list": ([{"type": "t"}], "type"),
    "number": (17, "17"),
}
BAD_DICTS: dict[str, tuple[Any, str]] = {
    "object": ({"type": "t", "the value": object()}, "object"),
    "set": ({"type": "t", "the value": {1234}}, "1234|set"),
    "nested": ({"type": "t", "the value": [{"deep": object()}]}, "the value|deep"),
    "function": ({"type": "t", "the value": repr}, "function"),
    "key": ({"type": "t", (1, object()): 1}, "object|tuple"),
    "circular": (_circular, "self|[Cc]ircular"),
    "reserved": ({"type": "t", "__asgi_channel__": "x"}, "__asgi_channel__"),
}
# JSON writes what msgpack can't, as the incumbent's does.
BAD_MSGPACK = {
    "huge int": ({"type": "t", "the value": 2**64}, "18446744073709551616"),
    "surrogate": ({"type": "t", "the value": "\ud800"}, "ud800"),
}
BAD_JSON = {"bytes value": ({"type": "t", "the value": b"some bytes"}, "some bytes")}


async def _refused(layer: RedisChannelLayer, server: Server, bad: Any) -> None:
    message, named = bad
    name = await layer.new_channel()
    for member in name, "worker":
        await layer.group_add("room", member)
    before = kept(server.client())
    sends = {"send": [name, "worker"], "group_send": ["room"]}
    for method, targets in sends.items():
        for target in targets:
            with pytest.raises(TypeError, match=named) as caught:
                await getattr(layer, method)(target, message)
            assert isinstance(caught.value, AssertionError)  # the incumbent's class
            assert len(str(caught.value)) < 1_000
    assert kept(server.client()) == before
    for channel in name, "worker":
        assert await nothing(layer, channel)
    await works(layer)


@pytest.mark.parametrize(
    "bad", (NO_DICTS | BAD_DICTS).values(), ids=NO_DICTS | BAD_DICTS
)
async def test_bad_messages(
    layer: RedisChannelLayer, valkey: Server, bad: tuple[Any, str]
) -> None:
    await _refused(layer, valkey, bad)


@pytest.mark.parametrize("layer", ["msgpack"], indirect=True)
@pytest.mark.parametrize("bad", BAD_MSGPACK.values(), ids=BAD_MSGPACK)
async def test_what_msgpack_can_t_pack(
    layer: RedisChannelLayer, valkey: Server, bad: tuple[Any, str]
) -> None:
    await _refused(layer, valkey, bad)


@pytest.mark.parametrize("layer", ["json"], indirect=True)
@pytest.mark.parametrize("bad", BAD_JSON.values(), ids=BAD_JSON)
async def test_what_json_can_t_write(
    layer: RedisChannelLayer, valkey: Server, bad: tuple[Any, str]
) -> None:
    await _refused(layer, valkey, bad)


@pytest.mark.parametrize("format", FORMATS)
async def test_a_message_that_is_too_large(valkey: Server, format: str) -> None:
    options = {"max_message_size": 1_000, "serializer_format": format}
    async with opened(valkey.url, **options) as layer:
        message = {"type": "t", "text": "x" * 1_000}
        await _refused(layer, valkey, (message, r"over max_message_size \(1000 bytes"))


async def test_an_error_shows_no_megabyte(layer: RedisChannelLayer) -> None:
    message = {"text": "x" * 1_000_000, "bad": object()}
    with pytest.raises(TypeError) as caught:
        await layer.send("worker", message)
    assert len(str(caught.value)) < 1_000


# Names

BAD_NAMES = {
    "too long": "x" * 101,
    "newline": "abc\n",
    "newline inside": "a\nbc",
    "space": "a bc",
    "tab": "a\tbc",
    "non-ASCII": "žluť",
    "non-ASCII digit": "room٣",
    "colon": "a:b",
    "slash": "a/b",
    "nul": "a\0b",
    "empty": "",
    "None": None,
    "bytes": b"abc",
    "number": 17,
    "list": ["abc"],
}


def _named(name: Any) -> str:
    return re.escape(repr(name)[:50])  # a longer one may be cut


async def test_longest_names(layer: RedisChannelLayer, valkey: Server) -> None:
    name = "x" * 100
    await layer.group_add(name, name)
    await layer.group_send(name, {"type": "t"})
    assert await soon(layer, name) == {"type": "t"}


@pytest.mark.parametrize("layer", ["msgpack"], indirect=True)
@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
async def test_bad_names(layer: RedisChannelLayer, valkey: Server, name: Any) -> None:
    message = {"type": "t"}
    calls = {
        "send": [(name, message)],
        "receive": [(name,)],
        "group_add": [(name, "worker"), ("room", name)],
        "group_discard": [(name, "worker"), ("room", name)],
        "group_send": [(name, message)],
    }
    for method, several in calls.items():
        for arguments in several:
            with pytest.raises(TypeError, match=_named(name)):
                await getattr(layer, method)(*arguments)
    assert kept(valkey.client()) == []
    await works(layer)


@pytest.mark.parametrize("layer", ["msgpack"], indirect=True)
@pytest.mark.parametrize("local", ["a b", "a\n", "ž", "a!b", "x" * 101], ids=ascii)
async def test_bad_local_parts(layer: RedisChannelLayer, local: str) -> None:
    name = f"specific.{layer.client_prefix}!{local}"
    for call in layer.send(name, {}), layer.receive(name), layer.group_add("r", name):
        with pytest.raises(TypeError, match="name must be"):
            await call
    with pytest.raises(TypeError, match=re.escape(repr("a!b"))):
        await layer.group_add("a!b", name)  # no process part in groups


@pytest.mark.parametrize("prefix", ["a b", "a\n", "ž", "x" * 101, "!"], ids=ascii)
async def test_bad_prefixes_of_new_channels(
    layer: RedisChannelLayer, prefix: str
) -> None:
    with pytest.raises(TypeError, match=_named(prefix)[:-1]):
        await layer.new_channel(prefix)
    await works(layer)


async def test_another_process_s_channel(
    layer: RedisChannelLayer, valkey: Server
) -> None:
    async with opened(valkey.url) as other:
        name = await other.new_channel()
        for foreign in name, "specific.1234!5678", "specific!5678", "!":
            with pytest.raises(TypeError, match=re.escape(foreign)) as caught:
                await layer.receive(foreign)
            if foreign != "!":
                assert isinstance(caught.value, AssertionError)
        assert kept(valkey.client()) == []
        await other.send(name, {"type": "t"})
        assert await soon(other, name) == {"type": "t"}
    await works(layer)


# Servers that can't be reached


async def test_an_unreachable_host(server: Server) -> None:
    server.kill()
    async with opened(server.url) as layer:
        name = await layer.new_channel()
        calls: dict[str, tuple[Any, ...]] = {
            "send": (name, {"type": "t"}),
            "group_add": ("room", name),
            "group_discard": ("room", name),
            "group_send": ("room", {"type": "t"}),
            "flush": (),
        }
        for method, arguments in calls.items():
            with pytest.raises(errors.ConnectionError, match=str(server.port)):
                await getattr(layer, method)(*arguments)
        server.start()
        await _until_it_works(layer)
        assert kept(server.client()) == []


async def test_an_unreachable_shard(valkey: Server) -> None:
    """What is on the others goes on."""
    gone = f"redis://127.0.0.1:{free_port()}"
    async with opened(valkey.url, gone) as layer:
        groups = [f"room{i}" for i in range(10)]
        for group in groups:
            if layer.consistent_hash(group):
                with pytest.raises(errors.ConnectionError, match=gone[-5:]):
                    await layer.group_add(group, "worker")
            else:
                await layer.group_add(group, "worker")


@pytest.mark.parametrize("password", ["the-wrong-one", None])
async def test_a_wrong_password(
    start_server: Callable[..., Server], password: str | None
) -> None:
    server = start_server(password="the-right-one")
    host = {"host": server.host, "port": server.port, "password": password}
    async with opened(host) as layer:
        name = await layer.new_channel()
        for call in (
            layer.send(name, {"type": "t"}),
            layer.receive(name),
            layer.receive("worker"),
            layer.group_send("room", {"type": "t"}),
        ):
            with pytest.raises(errors.RedisError) as caught:
                await call
            assert isinstance(caught.value, errors.AuthenticationError)
            assert "-one" not in str(caught.value)
        server.client().config_set("requirepass", password or "")
        await _until_it_works(layer)


async def _until_it_works(layer: RedisChannelLayer) -> None:
    """The layer does its job as soon as its back-off is over."""
    for _ in range(200):
        try:
            await layer.group_send("nobody", {"type": "t"})
            break
        except errors.RedisError:
            await asyncio.sleep(0.02)
    await works(layer)
