"""The chat room: one consumer per WebSocket; what is said in it is in talk.py."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from typing import Any
from urllib.parse import parse_qs

from channels.exceptions import ChannelFull
from django.conf import settings
from redis.exceptions import RedisError

from channels_redis_fast.consumers import FastDispatchMixin, broadcast
from channels_redis_fast.demo import presence
from channels_redis_fast.demo.crowd import CONTROL, group_of
from channels_redis_fast.demo.talk import Json, Talk, said

CROWD_LIMIT = 1000
NAME_LENGTH = 30
ROOM_LENGTH = 60
NUMBER_LIMIT = 2**53  # what JavaScript counts exactly
POLICY_VIOLATION, INTERNAL_ERROR = 1008, 1011  # a WebSocket closes with them


class PlainRoomConsumer(Talk):
    """A member of a chat room, who talks, listens and is seen by the others."""

    has_joined = False

    async def connect(self) -> None:
        """Joins the room, then tells the browser and the room so."""
        self.process = settings.SITE.name
        self.room = self.scope["url_route"]["kwargs"]["room"]
        self.group = group_of(self.room)
        query = parse_qs(self.scope["query_string"].decode("latin-1"))
        self.name = clean_name(query.get("name", [""])[0])
        self.name = self.name or f"guest {secrets.token_hex(2)}"
        if len(self.room) > ROOM_LENGTH:
            await self.accept()
            await self.refuse(f"a room's name has at most {ROOM_LENGTH} characters")
            await self.close(POLICY_VIOLATION)
            return
        self.has_joined = True
        await self.channel_layer.group_add(self.group, self.channel_name)
        recovery = await self.join_talk(query.get("since", [None])[0])
        await self.accept()
        await self.send_json({"type": "welcome", **self.card(), **recovery})
        await self._tell_room("member.arrived")
        if settings.SITE.names_members:
            presence.enter(self.channel_layer, self.group, self.channel_name)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Leaves the room also when a handler fails: nobody else would say so."""
        # Not in `dispatch`: who overrides that shares no frames of a broadcast.
        try:
            await super().__call__(scope, receive, send)
        except Exception:
            with contextlib.suppress(Exception):  # the first one is told
                await self.disconnect(INTERNAL_ERROR)
            raise

    async def disconnect(self, code: int) -> None:
        """Leaves the room."""
        if not self.has_joined:
            return
        self.has_joined = False
        if settings.SITE.names_members:
            presence.leave(self.group, self.channel_name)
        await self.leave_talk()
        await self.channel_layer.group_discard(self.group, self.channel_name)
        if not settings.SITE.names_members:
            await self._tell_room("member.left")

    # From the browser.

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        """Takes one message of the browser's and refuses, politely, what is none."""
        try:
            content = json.loads(text_data or "")
            kind = content.pop("type")
            action = getattr(self, f"on_{kind}", None)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            action = None
        if action is None:
            await self.refuse("expected a JSON object with a known type")
            return
        try:
            await action(content)
        except RedisError as error:
            await self.refuse(f"Redis can't be reached: {error}")

    async def on_ping(self, content: Json) -> None:
        """Times one round trip through the layer, which the whole room hears."""
        number = content.get("number")
        if not isinstance(number, int) or abs(number) > NUMBER_LIMIT:
            await self.refuse("number must be an integer of at most 2**53")
            return
        with contextlib.suppress(RedisError):  # the next one comes soon
            now = time.perf_counter()
            await self._tell_room("room.ping", number=number, started=now)

    async def on_usage(self, content: Json) -> None:
        """Tells how much CPU (seconds) this process took so far."""
        await self.send_json({"type": "usage", "cpu": time.process_time()})

    async def on_name(self, content: Json) -> None:
        """Takes another name."""
        name = content.get("name")
        if not isinstance(name, str) or not clean_name(name):
            await self.refuse(f"name must have 1 to {NAME_LENGTH} characters")
            return
        self.name = clean_name(name)
        await self._tell_room("member.here")

    async def on_crowd(self, content: Json) -> None:
        """Asks all processes for so many simulated members, together."""
        size = content.get("size")
        if not isinstance(size, int) or not 0 <= size <= CROWD_LIMIT:
            await self.refuse(f"size must be an integer from 0 to {CROWD_LIMIT}")
            return
        await self.channel_layer.group_send(
            CONTROL, {"type": "crowd.resize", "room": self.room, "size": size}
        )

    async def on_kill(self, content: Json) -> None:
        """Kills a server process of the demo; nobody says goodbye for its members."""
        process = content.get("process")
        if process not in settings.SITE.processes:
            await self.refuse(f"process must be one of {settings.SITE.processes}")
            return
        await self.channel_layer.group_send(
            CONTROL, {"type": "process.kill", "process": process}
        )

    # From the layer.

    async def member_arrived(self, event: Json) -> None:
        """Shows a newcomer and tells the newcomer who is here."""
        await self.send_json({**event, "type": "here", "arrived": True})
        if event["id"] == self.channel_name:
            return
        here = {"type": "member.here", **self.card()}
        try:
            await self.channel_layer.send(event["id"], here)
        except (ChannelFull, RedisError):
            # The newcomer's process has more to read than it may hold, or Redis is
            # away. The room works on without this member in the newcomer's list.
            return

    async def member_here(self, event: Json) -> None:
        """Shows who is here."""
        await self.send_json({**event, "type": "here"})

    async def room_present(self, event: Json) -> None:
        """Shows who of them the layer counts."""
        await self.send_json({**event, "type": "present"})

    async def member_left(self, event: Json) -> None:
        """Shows who left, where the layer doesn't tell."""
        await self.send_json({**event, "type": "left"})

    async def room_ping(self, event: Json) -> None:
        """Reports the round trip to the browser that asked for it."""
        if event["id"] == self.channel_name:
            taken = time.perf_counter() - event["started"]
            pong = {"type": "pong", "number": event["number"], "ms": taken * 1000}
            await self.send_json(pong)

    async def crowd_state(self, event: Json) -> None:
        """Shows the simulated members of one process."""
        await self.send_json({**event, "type": "crowd"})

    async def _tell_room(self, kind: str, **content: Any) -> None:
        event = {"type": kind, **self.card(), **content}
        await self.channel_layer.group_send(self.group, event)


class RoomConsumer(PlainRoomConsumer, FastDispatchMixin):
    """The same with the mixin; what all members are told alike is encoded once."""

    @broadcast
    @staticmethod
    def member_here(event: Json) -> Json:
        """Shows who is here."""
        return {**event, "type": "here"}

    @broadcast
    @staticmethod
    def member_left(event: Json) -> Json:
        """Shows who left, where the layer doesn't tell."""
        return {**event, "type": "left"}

    @broadcast
    @staticmethod
    def member_said(event: Json) -> Json:
        """Shows what somebody said."""
        return said(event)

    @broadcast
    @staticmethod
    def crowd_state(event: Json) -> Json:
        """Shows the simulated members of one process."""
        return {**event, "type": "crowd"}


def clean_name(name: str) -> str:
    """Returns the name on one line, without what cannot be printed, cut to size."""
    return "".join(filter(str.isprintable, name)).strip()[:NAME_LENGTH]
