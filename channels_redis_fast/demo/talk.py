"""What is said in a room: the layer keeps it, so that nobody who was away misses it.

It has a group of its own. In a history of all that a room hears pings would take the
place of messages.
"""

from __future__ import annotations

import contextlib
from typing import Any

from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
)
from django.conf import settings

from channels_redis_fast.demo import outage
from channels_redis_fast.types import position_of

TEXT_LENGTH = 1000

Json = dict[str, Any]


class MaybeGone(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Sends to the browser, if it is still there."""

    async def send(
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        close: bool = False,
    ) -> None:
        """Sends a frame."""
        # To a WebSocket that is gone uvicorn raises OSError, or RuntimeError when
        # it closed it itself. That would end this consumer before it hears of the
        # disconnect, so it would never leave the room.
        with contextlib.suppress(OSError, RuntimeError):
            await super().send(text_data, bytes_data, close)


class Talk(AsyncJsonWebsocketConsumer, MaybeGone):  # type: ignore[misc]
    """Somebody who talks in a room, and hears what is said there."""

    room: str
    name: str
    process: str

    async def join_talk(self, since: str | None) -> Json:
        """Hears what is said, after what was said since a position.

        Returns what to tell the browser of it: nothing if the layer keeps no history.
        """
        layer, talk = self.channel_layer, talk_of(self.room)
        if not settings.SITE.keeps_history:
            await layer.group_add(talk, self.channel_name)
            return {}
        recovery = await layer.group_join(talk, self.channel_name, since)
        told: Json = recovery._asdict()
        return told

    async def leave_talk(self) -> None:
        """Hears no more."""
        await self.channel_layer.group_discard(talk_of(self.room), self.channel_name)

    async def on_say(self, content: Json) -> None:
        """Says something to the room."""
        text = content.get("text")
        if not isinstance(text, str) or not 0 < len(text) <= TEXT_LENGTH:
            await self.refuse(f"text must have 1 to {TEXT_LENGTH} characters")
            return
        if not is_unicode(text):
            await self.refuse("text must be valid Unicode")
            return
        event = {"type": "member.said", **self.card(), "text": text}
        await self.channel_layer.group_send(talk_of(self.room), event)

    async def on_cut(self, content: Json) -> None:
        """Cuts this process off from Redis, then tells what was said meanwhile."""
        if not settings.SITE.keeps_history:
            await self.refuse("this layer keeps no history")
            return
        if outage.is_under_way():
            await self.refuse("this process is being cut off from Redis already")
            return
        talk = talk_of(self.room)
        before = await self.channel_layer.group_position(talk)

        async def tell() -> None:
            page = await self.channel_layer.group_history(talk, before)
            said = {"said": len(page.messages), "recovered": page.recovered}
            await self.send_json({"type": "restored", "cuts": outage.CUTS, **said})

        outage.begin(settings.SITE.port, tell)

    async def member_said(self, event: Json) -> None:
        """Shows what somebody said."""
        await self.send_json(said(event))

    async def group_gap(self, event: Json) -> None:
        """Shows that what was said here is lost."""
        await self.send_json({"type": "gap", "position": event["position"]})

    def card(self) -> Json:
        """Returns who this is."""
        return {"id": self.channel_name, "name": self.name, "process": self.process}

    async def refuse(self, why: str) -> None:
        """Tells the browser why nothing is done."""
        await self.send_json({"type": "error", "detail": why})


def talk_of(room: str) -> str:
    """Returns the group of those who hear what is said in a room."""
    return f"talk.{room}"


def said(event: Json) -> Json:
    """Returns what a browser is told of a message; it goes on from its position."""
    shown = {name: event[name] for name in ("id", "name", "process", "text")}
    return {"type": "said", **shown, "position": position_of(event)}


def is_unicode(text: str) -> bool:
    """Returns whether it can be sent: JSON may hold half of an emoji."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
