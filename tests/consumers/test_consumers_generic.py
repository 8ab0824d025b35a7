"""Each asynchronous consumer class of Channels, with the mixin before and after it.

And what consumers.py needs of Channels and Django beyond their documentation: when one
of these tests fails with a new version, its message says what that changed.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import channels.consumer
import channels.db
import pytest
from channels.consumer import AsyncConsumer, SyncConsumer, get_handler_name
from channels.exceptions import (
    AcceptConnection,
    DenyConnection,
    InvalidChannelLayerError,
    StopConsumer,
)
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
)
from channels.testing import HttpCommunicator, WebsocketCommunicator
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from channels_redis_fast.consumers import FastDispatchMixin
from support.consuming import Client, using
from support.servers import Server

Mix = Callable[[Any], Any]
SOON = 10.0


@pytest.fixture(params=["mixin first", "mixin last"])
def mix(request: pytest.FixtureRequest) -> Mix:
    """Makes a class with the mixin of one of Channels."""

    def made(base: Any) -> Any:
        # The mixin is an AsyncConsumer, and goes nowhere but before that.
        first = request.param == "mixin first" or base is AsyncConsumer
        bases = (FastDispatchMixin, base) if first else (base, FastDispatchMixin)
        return type("Mixed", bases, {})

    return made


@pytest.fixture(params=["core", "pubsub", "in-memory", "none"])
async def layer(request: pytest.FixtureRequest, valkey: Server) -> AsyncIterator[Any]:
    async with using(request.param, valkey.url) as found:
        yield found


def socket(consumer: Any, **more: Any) -> WebsocketCommunicator:
    return WebsocketCommunicator(consumer.as_asgi(), "/here/?a=b", **more)


async def test_websockets(mix: Mix, layer: Any) -> None:
    log: list[Any] = []

    class Consumer(mix(AsyncWebsocketConsumer)):  # type: ignore[misc]
        async def connect(self) -> None:
            log.append(self.scope["path"])
            await self.accept(self.scope["subprotocols"][1], [(b"x", b"y")])

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(text_data=text_data, bytes_data=bytes_data)

        async def disconnect(self, code: int) -> None:
            log.append(code)

    one = socket(Consumer, subprotocols=["a", "b"])
    assert await one.connect(SOON) == (True, "b")
    assert one.response_headers == [(b"x", b"y")]
    await one.send_to(text_data="hello")
    assert await one.receive_from(SOON) == "hello"
    await one.send_to(bytes_data=b"\0w")
    assert await one.receive_from(SOON) == b"\0w"
    assert await one.receive_nothing()
    await one.disconnect(4001, SOON)
    assert log == ["/here/", 4001]


async def test_groups(mix: Mix, layer: Any) -> None:
    """Joined at the connection and left at its end; the layer's events are handled."""

    class Consumer(mix(AsyncWebsocketConsumer)):  # type: ignore[misc]
        groups = ["room"]

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(text_data=text_data)

        async def group_called(self, event: Any) -> None:
            await self.send(text_data=event["text"], close=4002)

    one = socket(Consumer)
    if layer is None:
        with pytest.raises(InvalidChannelLayerError):
            await one.connect(0.1)
        return
    await one.connect(SOON)
    await layer.group_send("room", {"type": "websocket.receive", "text": "hello"})
    assert await one.receive_from(SOON) == "hello"
    await layer.group_send("room", {"type": "group.called", "text": "go"})
    assert await one.receive_from(SOON) == "go"
    closing = await one.receive_output(SOON)
    assert (closing["type"], closing["code"]) == ("websocket.close", 4002)
    await one.disconnect(1000, SOON)


@pytest.mark.parametrize("answer", [AcceptConnection, DenyConnection])
async def test_connect_may_raise_its_answer(mix: Mix, layer: Any, answer: Any) -> None:
    class Consumer(mix(AsyncWebsocketConsumer)):  # type: ignore[misc]
        async def connect(self) -> None:
            raise answer

    one = socket(Consumer)
    accepted, _ = await one.connect(SOON)
    assert accepted == (answer is AcceptConnection)
    await one.disconnect(1000, SOON)


async def test_json(mix: Mix, layer: Any) -> None:
    class Consumer(mix(AsyncJsonWebsocketConsumer)):  # type: ignore[misc]
        async def receive_json(self, content: Any, **_: Any) -> None:
            await self.send_json(content)

    one = socket(Consumer)
    await one.connect(SOON)
    await one.send_json_to({"hello": ["world"]})
    assert await one.receive_json_from(SOON) == {"hello": ["world"]}
    await one.send_to(bytes_data=b"\0")
    with pytest.raises(ValueError, match="No text section"):
        await one.wait(SOON)


async def test_http(mix: Mix, layer: Any) -> None:
    class Consumer(mix(AsyncHttpConsumer)):  # type: ignore[misc]
        async def handle(self, body: bytes) -> None:
            if layer is not None:
                await layer.send(self.channel_name, {"type": "never.heard"})
            text = json.dumps(json.loads(body)).encode()
            await self.send_response(201, text, headers={b"A": b"b"})

        async def disconnect(self) -> None:
            log.append("disconnect")

    log: list[str] = []
    one = HttpCommunicator(Consumer.as_asgi(), "POST", "/", body=b'{"n":1}')
    answer = await one.get_response(SOON)
    assert (answer["status"], answer["body"]) == (201, b'{"n": 1}')
    assert answer["headers"] == [(b"A", b"b")]
    await one.wait(SOON)
    assert log == ["disconnect"]


async def test_http_that_streams_what_the_layer_says(mix: Mix, layer: Any) -> None:
    class Consumer(mix(AsyncHttpConsumer)):  # type: ignore[misc]
        async def http_request(self, message: Any) -> None:
            await self.send_headers()
            await self.send_body(self.channel_name.encode(), more_body=True)

        async def piece(self, event: Any) -> None:
            await self.send_body(b"piece", more_body=not event["last"])
            if event["last"]:
                raise StopConsumer

    if layer is None:
        pytest.skip("there is nothing to stream")
    one = HttpCommunicator(Consumer.as_asgi(), "GET", "/")
    await one.send_input({"type": "http.request", "body": b""})
    await one.receive_output(SOON)
    name = (await one.receive_output(SOON))["body"].decode()
    for last in (False, True):
        await layer.send(name, {"type": "piece", "last": last})
        assert (await one.receive_output(SOON))["body"] == b"piece"
    await one.wait(SOON)


async def test_another_layer_is_used(mix: Mix, valkey: Server) -> None:
    class Consumer(mix(AsyncWebsocketConsumer)):  # type: ignore[misc]
        channel_layer_alias = "another"

        async def connect(self) -> None:
            await self.accept()
            await self.send(text_data=str(self.channel_layer))

    async with using("core", valkey.url):
        one = socket(Consumer)
        await one.connect(SOON)
        assert await one.receive_from(SOON) == "None"
        await one.disconnect(1000, SOON)


@pytest.mark.parametrize("kind", ["_private", ".private"])
async def test_private_handlers_are_refused(mix: Mix, layer: Any, kind: str) -> None:
    class Consumer(mix(AsyncConsumer)):  # type: ignore[misc]
        async def _private(self, event: Any) -> None: ...

    client = Client(Consumer.as_asgi())
    client.say(kind)
    assert "leading underscore" in str(await client.ended())


async def test_initial_arguments(mix: Mix) -> None:
    class Consumer(mix(AsyncConsumer)):  # type: ignore[misc]
        def __init__(self, word: str) -> None:
            self.word = word

        async def test_say(self, event: Any) -> None:
            await self.send({"text": self.word})
            raise StopConsumer

    client = Client(Consumer.as_asgi(word="hello"))
    client.say("test.say")
    assert await client.ended() is None
    assert client.sent == [{"text": "hello"}]


# What consumers.py needs of Channels


def test_what_the_mixin_stands_for_is_there() -> None:
    names = {name for name in vars(AsyncConsumer) if not name.startswith("__")}
    assert names | {"__call__"} == {
        *("_sync", "__call__", "as_asgi", "channel_layer_alias", "dispatch", "send")
    }, "AsyncConsumer has other methods now: does FastDispatchMixin keep what they do?"
    call = list(inspect.signature(AsyncConsumer.__call__).parameters)
    assert call == ["self", "scope", "receive", "send"]
    assert list(inspect.signature(AsyncConsumer.dispatch).parameters) == [
        *("self", "message")
    ], "dispatch takes something else now"


def test_synchronous_consumers_are_marked() -> None:
    text = "_sync says no longer which consumers handle events in threads"
    assert (AsyncConsumer._sync, SyncConsumer._sync) == (False, True), text


def test_handlers_are_named_as_before() -> None:
    assert get_handler_name({"type": "a.b_c"}) == "a_b_c"
    for wrong in ({}, {"type": "_a"}, {"type": ".a"}):
        with pytest.raises(ValueError, match="message"):
            get_handler_name(wrong)


async def test_channels_closes_old_connections_where_we_do(
    monkeypatch: pytest.MonkeyPatch, valkey: Server
) -> None:
    """By this name, before each event; the mixin before the first one."""
    for base, expected in ((AsyncConsumer, 3), (FastDispatchMixin, 1)):
        calls: list[None] = []
        monkeypatch.setattr(
            channels.db, "close_old_connections", lambda calls=calls: calls.append(None)
        )

        class Consumer(base):  # type: ignore[misc, valid-type]
            async def test_count(self, event: Any) -> None:
                await self.send({})

        async with using("none", valkey.url):
            client = Client(Consumer.as_asgi())
            for n in range(3):
                client.say("test.count")
                await client.was_sent(n + 1)
            client.task.cancel()
            await client.ended()
        text = f"{base.__name__} no longer uses channels.db.close_old_connections"
        assert len(calls) == expected, text


async def test_the_layer_is_found_by_its_name(
    monkeypatch: pytest.MonkeyPatch, valkey: Server
) -> None:
    """Tests of applications replace `channels.consumer.get_channel_layer`."""
    async with using("core", valkey.url) as layer:
        for base in (AsyncConsumer, FastDispatchMixin):

            class Consumer(base):  # type: ignore[misc, valid-type]
                async def test_look(self, event: Any) -> None:
                    assert self.channel_layer is layer
                    raise StopConsumer

            def find(alias: str) -> Any:
                assert alias == "default"
                return layer

            monkeypatch.setattr(channels.consumer, "get_channel_layer", find)
            client = Client(Consumer.as_asgi())
            client.say("test.look")
            assert await client.ended() is None


async def test_frames_go_the_way_of_channels(valkey: Server) -> None:
    """`send_json` is `encode_json`, then `send` with `text_data`."""
    encode = inspect.getattr_static(AsyncJsonWebsocketConsumer, "encode_json")
    assert isinstance(encode, classmethod), "encode_json holds something of a consumer"
    assert inspect.iscoroutinefunction(encode.__func__)
    parameters = list(inspect.signature(AsyncWebsocketConsumer.send).parameters)
    assert parameters[:3] == ["self", "text_data", "bytes_data"]
    events: list[Any] = []

    async def base_send(event: Any) -> None:
        events.append(event)

    consumer = AsyncWebsocketConsumer()
    consumer.base_send = base_send
    await consumer.send(text_data="a")
    await consumer.send(bytes_data=b"b")
    expected: list[Any] = [{"type": "websocket.send", "text": "a"}]
    expected.append({"type": "websocket.send", "bytes": b"b"})
    assert events == expected, "Channels' send does more than to give base_send a frame"


def test_connections_have_what_tells_that_they_are_old() -> None:
    connection = connections["default"]
    for name in (
        *("connection", "errors_occurred", "autocommit", "close_at"),
        *("health_check_enabled", "health_check_done"),
    ):
        assert hasattr(connection, name), f"Django's connections have no {name} now"
    source = inspect.getsource(BaseDatabaseWrapper.close_if_unusable_or_obsolete)
    looked_at = {
        *("connection", "health_check_done", "get_autocommit", "settings_dict"),
        *("close", "errors_occurred", "is_usable", "close_at"),
    }
    found = set(re.findall(r"self\.(\w+)", source))
    assert found == looked_at, "Django looks at more to tell an old connection"
