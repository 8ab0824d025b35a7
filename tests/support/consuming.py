"""Consumers without a server: what their clients say, and what they are sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import django
from channels.layers import InMemoryChannelLayer, channel_layers
from channels_redis.core import RedisChannelLayer as TheirLayer
from django.conf import settings

from support.layers import end
from support.polling import eventually
from support.syncing import KINDS

if not settings.configured:
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    settings.configure(DATABASES={"default": sqlite}, SECRET_KEY="of tests")
    django.setup()

ALIAS = "default"
SCOPE = {"type": "websocket", "path": "/", "headers": [], "subprotocols": []}
LAYERS = ("core", "pubsub", "in-memory", "channels_redis", "none")


@contextlib.asynccontextmanager
async def using(kind: str, url: str, **options: Any) -> AsyncIterator[Any]:
    """A layer of one of LAYERS, which consumers find; None of "none"."""
    layer: Any = None
    if kind in KINDS:
        layer = KINDS[kind](hosts=[url], **options)
    elif kind == "channels_redis":
        host = {"address": url, "socket_timeout": None}
        layer = TheirLayer(hosts=[host], **options)
    elif kind == "in-memory":
        layer = InMemoryChannelLayer(**options)
    channel_layers.set(ALIAS, layer)
    try:
        yield layer
    finally:
        del channel_layers.backends[ALIAS]
        if hasattr(layer, "close_pools"):
            await layer.close_pools()


class Client:
    """One client of a consumer, and the server between them."""

    def __init__(self, consumer: Any, **scope: Any) -> None:
        self.sent: list[Any] = []
        self.failure: Exception | None = None  # for the next `receive` to raise
        self.open = asyncio.Event()  # unset: sends wait
        self.open.set()
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        work = consumer({**SCOPE, **scope}, self._receive, self._send)
        self.task = asyncio.ensure_future(work)

    async def _receive(self) -> Any:
        event = await self._events.get()
        if isinstance(event, BaseException):
            raise event
        return event

    async def _send(self, message: Any) -> None:
        await self.open.wait()
        self.sent.append(message)

    def say(self, kind: Any, **content: Any) -> None:
        """The consumer's next event; an exception is raised by `receive`."""
        raises = isinstance(kind, BaseException)
        self._events.put_nowait(kind if raises else {"type": kind, **content})

    def text(self, text: str) -> None:
        """Sends a frame."""
        self.say("websocket.receive", text=text)

    async def connect(self) -> Client:
        """Returns when it was accepted."""
        self.say("websocket.connect")
        await self.was_sent(1)
        assert self.sent.pop(0)["type"] == "websocket.accept"
        return self

    async def was_sent(self, count: int) -> list[Any]:
        """The text or bytes of frames, once so many were sent."""
        await eventually(
            lambda: len(self.sent) >= count or self.task.done(), f"{count} frames"
        )
        return [one.get("text", one.get("bytes")) for one in self.sent]

    async def was_sent_json(self, count: int) -> list[Any]:
        """The same, decoded."""
        return list(map(json.loads, await self.was_sent(count)))

    def disconnect(self, code: int = 1000) -> None:
        """As a server tells it."""
        self.say("websocket.disconnect", code=code)

    async def ended(self) -> BaseException | None:
        """How the consumer ended, once it did."""
        await asyncio.wait([self.task], timeout=10)
        assert self.task.done(), "the consumer goes on"
        if self.task.cancelled():
            return asyncio.CancelledError()
        return self.task.exception()

    async def leave(self) -> None:
        """Ends the consumer, if it hasn't ended."""
        self.disconnect()
        await asyncio.wait([self.task], timeout=10)
        await end(self.task)


@contextlib.asynccontextmanager
async def connected(consumer: Any, count: int) -> AsyncIterator[list[Client]]:
    """So many clients of a consumer, which leave at the end."""
    clients = [Client(consumer) for _ in range(count)]
    try:
        await asyncio.gather(*(client.connect() for client in clients))
        yield clients
    finally:
        await asyncio.gather(*(client.leave() for client in clients))
