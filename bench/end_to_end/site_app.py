"""The site that is measured: a room's consumers, as BENCH_SITE says with which layer.

And `bare`: an application without Channels, that sends its sockets what is published
over redis-py, which is the least that a server must do.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import django
from channels.layers import channel_layers
from django.conf import settings

from contenders import CONTENDERS, Setting

CONTENDER, ADDRESS = json.loads(os.environ["BENCH_SITE"])
URL = "redis://{}:{}".format(*ADDRESS)

settings.configure(
    SECRET_KEY="of benchmarks",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()
if CONTENDER in CONTENDERS:
    layer = CONTENDERS[CONTENDER].make(Setting(tuple(ADDRESS)))
    channel_layers.set("default", layer)

from channels.generic.websocket import AsyncJsonWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from channels_redis_fast.consumers import FastDispatchMixin, broadcast  # noqa: E402


class Plain(AsyncJsonWebsocketConsumer):
    """A member of one room, as the documentation of Channels writes it."""

    async def connect(self) -> None:
        """Joins it."""
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """Leaves it."""
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive_json(self, content: Any, **_: Any) -> None:
        """Answers the client."""
        await self.send_json(content)

    async def chat_message(self, event: Any) -> None:
        """Tells the client what was sent to the room."""
        await self.send_json({"n": event["n"], "text": event["text"]})


class Mixin(FastDispatchMixin, Plain):
    """The same, with the mixin."""


class Broadcast(FastDispatchMixin, Plain):
    """The same, with a frame that is made once."""

    @broadcast
    def chat_message(event: Any) -> Any:
        """What all clients are told."""
        return {"n": event["n"], "text": event["text"]}


CONSUMERS = {"plain": Plain, "mixin": Mixin, "broadcast": Broadcast}
channels = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [
                path(f"{name}/<slug:room>/", consumer.as_asgi())
                for name, consumer in CONSUMERS.items()
            ]
        )
    }
)

sockets: set[Any] = set()
listening: list[asyncio.Task[None]] = []


async def listen() -> None:
    """Sends all sockets what is published."""
    from redis.asyncio import Redis

    pubsub = Redis.from_url(URL, socket_timeout=None).pubsub()
    await pubsub.subscribe("bare")
    async for message in pubsub.listen():
        if message["type"] == "message":
            frame = {"type": "websocket.send", "text": message["data"].decode()}
            for send in list(sockets):
                await send(frame)


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """One socket without Channels."""
    if not listening:
        listening.append(asyncio.ensure_future(listen()))
    await receive()
    await send({"type": "websocket.accept"})
    sockets.add(send)
    try:
        while (await receive())["type"] != "websocket.disconnect":
            pass
    finally:
        sockets.discard(send)


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Either of them."""
    await (bare if CONTENDER == "bare" else channels)(scope, receive, send)
