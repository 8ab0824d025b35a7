"""A site that servers run in tests: WebSockets, and events over HTTP.

REDIS_URL says where its layer is, LAYER of which kind.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import django
import psutil
from django.conf import settings

BACKENDS = {
    "core": "channels_redis_fast.core.RedisChannelLayer",
    "pubsub": "channels_redis_fast.pubsub.RedisPubSubChannelLayer",
}

settings.configure(
    SECRET_KEY="of tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": BACKENDS[os.environ.get("LAYER", "core")],
            # Short: memberships of consumers that a broken socket ended last so long.
            "CONFIG": {"hosts": [os.environ["REDIS_URL"]], "expiry": 3},
        }
    },
)
django.setup()

from channels.generic.websocket import AsyncJsonWebsocketConsumer  # noqa: E402
from channels.layers import get_channel_layer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import JsonResponse, StreamingHttpResponse  # noqa: E402
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


async def events(request: Any, room: str) -> Any:
    """What is sent to a room, as server-sent events."""

    async def stream() -> AsyncIterator[str]:
        async with get_channel_layer().listen(f"room-{room}", "all") as messages:
            yield ": you are in\n\n"
            async for message in messages:
                yield f"data: {json.dumps(message['data'])}\n\n"

    return StreamingHttpResponse(stream(), content_type="text/event-stream")


async def remains(request: Any) -> Any:
    """What this process has of what requests might leave behind."""
    layer = get_channel_layer()
    joined = layer._table if hasattr(layer, "_table") else layer._memberships
    found = {
        "channels": len(layer._mailboxes),
        "memberships": len(joined),
        "tasks": len(asyncio.all_tasks()),
        "sockets": len(psutil.Process().net_connections("inet")),
    }
    return JsonResponse(found)


urlpatterns = [path("events/<room>/", events), path("remains/", remains)]


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    """Nothing begins or ends with the server."""
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


application = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": sockets, "lifespan": lifespan}
)
