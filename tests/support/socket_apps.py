"""A site of WebSockets that servers run in tests; REDIS_URL says where its layer is."""

from __future__ import annotations

import os
from typing import Any

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of tests",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis_fast.core.RedisChannelLayer",
            # Short: memberships of consumers that a broken socket ended last so long.
            "CONFIG": {"hosts": [os.environ["REDIS_URL"]], "expiry": 3},
        }
    },
)
django.setup()

from channels.generic.websocket import AsyncJsonWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from channels_redis_fast.consumers import FastDispatchMixin, broadcast  # noqa: E402


class Plain(AsyncJsonWebsocketConsumer):
    """Joins a room, answers, and ends as it is told."""

    groups = ["room"]

    async def receive_json(self, content: Any, **_: Any) -> None:
        if content == "raise":
            raise RuntimeError("as the client wished")
        if content == "close":
            await self.close(4001)
        else:
            await self.send_json(content)

    async def own(self, event: Any) -> None:
        await self.send_json([event["n"], event.get("text", "")])


class Fast(FastDispatchMixin, Plain):
    """The same with the mixin."""

    @broadcast
    def notice(event: Any) -> Any:
        return [event["n"], event.get("text", "")]


sockets = URLRouter([path("plain/", Plain.as_asgi()), path("fast/", Fast.as_asgi())])


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    """Nothing begins or ends with the server."""
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


application = ProtocolTypeRouter({"websocket": sockets, "lifespan": lifespan})
