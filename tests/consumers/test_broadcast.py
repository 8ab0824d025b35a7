"""Frames that are made once for all members, and what may not be made so."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from unittest.mock import AsyncMock, call

import pytest
from channels.consumer import AsyncConsumer
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)

from channels_redis_fast.consumers import FastDispatchMixin, broadcast
from support.consuming import Client, connected, using
from support.servers import Server

KINDS = ("core", "pubsub", "in-memory")
MEMBERS = 5


class Room(FastDispatchMixin, AsyncJsonWebsocketConsumer):
    """Counts what its broadcast functions are called with."""

    groups = ["room"]
    calls: list[Any] = []

    @broadcast
    def notice(event: Any) -> Any:
        Room.calls.append(event)
        return event["content"]

    async def own(self, event: Any) -> None:
        await self.send_json(event["content"])


@pytest.fixture(autouse=True)
def _forget() -> None:
    Room.calls.clear()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "content", [{"n": 1, "list": [1, None]}, ["a"], 7, "as it is", b"as they are"]
)
async def test_all_members_get_the_frame(
    kind: str, content: Any, valkey: Server
) -> None:
    async with (
        using(kind, valkey.url) as layer,
        connected(Room.as_asgi(), MEMBERS) as clients,
    ):
        await layer.group_send("room", {"type": "notice", "content": content})
        frames = [(await client.was_sent(1))[0] for client in clients]
        assert len(set(frames)) == 1
        if isinstance(content, (str, bytes)):
            assert frames[0] == content
        else:
            assert json.loads(frames[0]) == content
        shares = kind != "in-memory"
        assert len(Room.calls) == (1 if shares else MEMBERS)
        assert len(set(map(id, frames))) == 1 or not shares


@pytest.mark.parametrize("kind", KINDS)
async def test_none_sends_nothing(kind: str, valkey: Server) -> None:
    async with (
        using(kind, valkey.url) as layer,
        connected(Room.as_asgi(), MEMBERS) as clients,
    ):
        for content in (None, "then"):
            await layer.group_send("room", {"type": "notice", "content": content})
        for client in clients:
            assert await client.was_sent(1) == ["then"]


async def test_order_is_kept_with_a_busy_member(valkey: Server) -> None:
    """Whose messages wait in its mailbox, and share the frames all the same."""
    async with (
        using("core", valkey.url) as layer,
        connected(Room.as_asgi(), MEMBERS) as clients,
    ):
        busy, *others = clients
        busy.open.clear()
        for n in range(30):
            kind = "notice" if n % 3 else "own"
            await layer.group_send("room", {"type": kind, "content": {"n": n}})
            await others[0].was_sent(n + 1)
        assert len(Room.calls) == 20
        busy.open.set()
        for client in clients:
            assert await client.was_sent_json(30) == [{"n": n} for n in range(30)]
        assert len(Room.calls) == 20


async def test_a_direct_message_is_broadcast_to_one(valkey: Server) -> None:
    class Named(Room):
        async def receive_json(self, content: Any, **_: Any) -> None:
            await self.send_json(self.channel_name)

    async with (
        using("core", valkey.url) as layer,
        connected(Named.as_asgi(), 1) as (client,),
    ):
        client.text("0")
        (name,) = await client.was_sent_json(1)
        await layer.send(name, {"type": "notice", "content": "to you"})
        assert (await client.was_sent(2))[1] == "to you"


async def test_classes_make_their_own_frames(valkey: Server) -> None:
    """As another class may encode in another way."""

    class Loud(Room):
        @classmethod
        async def encode_json(cls, content: Any) -> str:
            await asyncio.sleep(0)  # it may really wait
            return json.dumps(content).upper()

    class Silent(Room):
        async def notice(self, event: Any) -> None:
            await self.send_json("mine")

    async with (
        using("core", valkey.url) as layer,
        connected(Room.as_asgi(), 2) as usual,
        connected(Loud.as_asgi(), 2) as loud,
        connected(Silent.as_asgi(), 2) as silent,
    ):
        await layer.group_send("room", {"type": "notice", "content": ["a"]})
        for clients, frame in ((usual, '["a"]'), (loud, '["A"]'), (silent, '"mine"')):
            for client in clients:
                assert await client.was_sent(1) == [frame]


@pytest.mark.parametrize("is_mixed_in_first", [True, False])
async def test_an_overridden_dispatch_sees_each_message(
    is_mixed_in_first: bool, valkey: Server
) -> None:
    """It may change the message, so each consumer makes its own frame."""

    class Changing:
        async def dispatch(self, message: Any) -> None:
            if message["type"] == "notice":
                message = {**message, "content": id(self)}
            await super().dispatch(message)  # type: ignore[misc]

    mixed = type("Mixed", (FastDispatchMixin, AsyncJsonWebsocketConsumer), {})
    bases = (Changing, mixed)
    if not is_mixed_in_first:
        bases = (Changing, AsyncJsonWebsocketConsumer, FastDispatchMixin)

    class Consumer(*bases):  # type: ignore[misc]
        groups = ["room"]

        @broadcast
        def notice(event: Any) -> Any:
            return [event["content"]]

    async with (
        using("core", valkey.url) as layer,
        connected(Consumer.as_asgi(), 3) as clients,
    ):
        await layer.group_send("room", {"type": "notice", "content": 0})
        frames = [(await client.was_sent_json(1))[0] for client in clients]
        assert len(set(map(tuple, frames))) == 3


class Loud:
    """Shouts the text of each frame."""

    async def send(self, text_data: Any = None, **more: Any) -> None:
        await super().send(text_data=f"{text_data}!", **more)  # type: ignore[misc]


class LoudEvents(AsyncConsumer):  # type: ignore[misc]
    """The same, a step further down."""

    async def send(self, message: Any) -> None:
        if "text" in message:
            message["text"] += "!"
        await super().send(message)


@pytest.mark.parametrize("where", ["before", "behind", "patched"])
async def test_an_overridden_send_is_called(
    where: str, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bases = {"before": (Loud, Room), "behind": (Room, LoudEvents), "patched": (Room,)}
    consumer: Any = type("Own", bases[where], {})
    if where == "patched":
        send = AsyncWebsocketConsumer.send

        async def patched(self: Any, text_data: Any = None, **more: Any) -> None:
            await send(self, text_data=f"{text_data}!", **more)

        monkeypatch.setattr(consumer, "send", patched)
    async with (
        using("core", valkey.url) as layer,
        connected(consumer.as_asgi(), 2) as clients,
    ):
        await layer.group_send("room", {"type": "notice", "content": "hello"})
        for client in clients:
            assert await client.was_sent(1) == ["hello!"]


async def test_a_send_of_one_consumer_is_called() -> None:
    """As a test of a handler may set it, in a consumer that no client has."""
    consumer, sent = Room(), AsyncMock()
    consumer.send = sent
    handler: Any = consumer.notice
    for content in "text", b"bytes":
        await handler({"type": "notice", "content": content})
    assert sent.await_args_list == [call(text_data="text"), call(bytes_data=b"bytes")]


async def test_what_it_raises_ends_each(valkey: Server) -> None:
    async with using("core", valkey.url) as layer:
        clients = [Client(Room.as_asgi()) for _ in range(3)]
        await asyncio.gather(*(client.connect() for client in clients))
        await layer.group_send("room", {"type": "notice"})
        for client in clients:
            assert isinstance(await client.ended(), KeyError)


async def test_no_encode_json(valkey: Server) -> None:
    class Consumer(FastDispatchMixin, AsyncWebsocketConsumer):
        groups = ["room"]

        @broadcast
        def notice(event: Any) -> Any:
            return event["content"]

    async with using("core", valkey.url) as layer:
        client = await Client(Consumer.as_asgi()).connect()
        await layer.group_send("room", {"type": "notice", "content": "text"})
        assert await client.was_sent(1) == ["text"]
        await layer.group_send("room", {"type": "notice", "content": ["list"]})
        error = await client.ended()
        assert isinstance(error, TypeError)
        assert "notice returned ['list']; a consumer without encode_json" in str(error)


def test_its_function_can_be_called() -> None:
    assert Room.notice({"content": "x"}) == "x"
    assert Room.notice.__name__ == "notice"


# Refused when the class is made


def test_functions_that_are_refused() -> None:
    with pytest.raises(TypeError, match=r"write def f\(event\).*takes no self"):

        @broadcast
        def f(self: Any, event: Any) -> None: ...

    for function in (
        lambda self: 0,
        lambda: 0,
        lambda event, *, more: 0,
        lambda cls: 0,
    ):
        with pytest.raises(TypeError, match="takes no self"):
            broadcast(function)
    with pytest.raises(TypeError, match="not async def"):

        @broadcast
        async def g(event: Any) -> None: ...

    for nothing in (None, "name", 7, classmethod(lambda event: 0)):
        with pytest.raises(TypeError, match="takes a function of the event, not"):
            broadcast(nothing)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes no self"):
        broadcast(type)  # it has no signature


def test_static_methods_are_taken() -> None:
    """Linters and type checkers want self, or this."""

    class Consumer(FastDispatchMixin, AsyncJsonWebsocketConsumer):
        @broadcast
        @staticmethod
        def notice(event: Any) -> Any:
            return event

    assert Consumer.notice("x") == "x"
    with pytest.raises(TypeError, match=r"Wrong\.notice: write @broadcast first"):

        class Wrong(FastDispatchMixin, AsyncJsonWebsocketConsumer):
            @staticmethod
            @broadcast
            def notice(event: Any) -> Any: ...


def test_no_mixin() -> None:
    # Python before 3.12 makes a RuntimeError of it, with the TypeError as its cause.
    with pytest.raises((TypeError, RuntimeError)) as caught:

        class Consumer(AsyncJsonWebsocketConsumer):
            @broadcast
            def notice(event: Any) -> Any: ...

    error = caught.value.__cause__ or caught.value
    assert isinstance(error, TypeError)
    assert "Consumer.notice: @broadcast needs FastDispatchMixin" in str(error)


@pytest.mark.parametrize("base", [AsyncConsumer, AsyncHttpConsumer])
def test_no_websocket(base: Any) -> None:
    with pytest.raises(TypeError, match=r"Consumer.notice.*WebSocket frames"):

        class Consumer(FastDispatchMixin, base):  # type: ignore[misc, valid-type]
            @broadcast
            def notice(event: Any) -> Any: ...


def test_what_is_of_one_consumer() -> None:
    class Encoding(Room):
        async def send(self, *_: Any, **__: Any) -> None: ...

        @staticmethod
        async def encode_json(content: Any) -> str:
            return ""

    with pytest.raises(TypeError, match=r"Encodes.notice.*must be a classmethod"):

        class Encodes(Room):
            async def encode_json(self, content: Any) -> str:  # type: ignore[override]
                return ""

    with pytest.raises(TypeError, match=r"Sends.notice.*doesn't call send_json"):

        class Sends(Room):
            async def send_json(self, *_: Any, **__: Any) -> None: ...


@pytest.mark.parametrize("base", [WebsocketConsumer, JsonWebsocketConsumer])
@pytest.mark.parametrize("first", [True, False])
def test_synchronous_consumers(base: Any, first: bool) -> None:
    bases = (FastDispatchMixin, base) if first else (base, FastDispatchMixin)
    text = f"Consumer is a synchronous consumer.*needs Async{base.__name__}"
    with pytest.raises(TypeError, match=text):
        type("Consumer", bases, {})


@pytest.mark.parametrize("method", ["dispatch", "__call__"])
def test_before_a_base_that_overrides(method: str) -> None:
    base = type("Base", (AsyncConsumer,), {method: lambda *_: None})
    text = rf"Base has a {method} of its own.*Consumer\(Base, FastDispatchMixin\)"
    with pytest.raises(TypeError, match=text):
        type("Consumer", (FastDispatchMixin, base), {})
    type("Consumer", (base, FastDispatchMixin), {})
