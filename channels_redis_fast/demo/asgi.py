"""The ASGI application of one server process."""

from __future__ import annotations

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "channels_redis_fast.demo.settings")
pages = get_asgi_application()  # first: it readies Django for the imports below

from channels_redis_fast.demo.consumers import (  # noqa: E402
    PlainRoomConsumer,
    RoomConsumer,
)
from channels_redis_fast.demo.crowd import lifespan  # noqa: E402

consumer = PlainRoomConsumer if settings.SITE.plain else RoomConsumer
sockets = URLRouter([path("ws/room/<slug:room>/", consumer.as_asgi())])

application = ProtocolTypeRouter(
    {
        "http": pages,
        "websocket": AllowedHostsOriginValidator(sockets),
        "lifespan": lifespan,
    }
)
