"""Simulated members: real channels in real groups that listen and say nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from channels.layers import get_channel_layer
from django.conf import settings

from channels_redis_fast.demo.presence import CROWD
from channels_redis_fast.demo.site import Site

CONTROL = "control"  # the group in which every process hears what browsers want
AT_ONCE = 50  # members that join or leave at a time, so that the room is not held up
REPORT_EVERY = 1.0
ALONE_FOR = 90.0  # more than a minute: browsers slow hidden pages down to one a minute

logger = logging.getLogger(__name__)

Message = dict[str, Any]


def group_of(room: str) -> str:
    """Returns the group in which the members of a room are."""
    return f"room.{room}"


class Party:
    """The simulated members of one room in this process."""

    def __init__(self, layer: Any, room: str) -> None:
        self.wanted = 0
        self.total = 0
        self.heard = 0
        self.company = time.monotonic()
        self._layer = layer
        self._group = group_of(room)
        self._members: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._members)

    async def step(self) -> None:
        """Lets some members join or leave, towards the number wanted."""
        missing = self.wanted - len(self._members)
        if missing > 0:
            joining = (self._join() for _ in range(min(missing, AT_ONCE)))
            await asyncio.gather(*joining)
        elif missing < 0:
            leaving = list(self._members)[: min(-missing, AT_ONCE)]
            await asyncio.gather(*(self._leave(channel) for channel in leaving))

    async def _join(self) -> None:
        channel = await self._layer.new_channel(CROWD)
        await self._layer.group_add(self._group, channel)
        self._members[channel] = asyncio.create_task(self._listen(channel))

    async def _leave(self, channel: str) -> None:
        task = self._members.pop(channel)
        task.cancel()
        await asyncio.wait([task])
        await self._layer.group_discard(self._group, channel)

    async def _listen(self, channel: str) -> None:
        while True:
            try:
                message = await self._layer.receive(channel)
            except Exception:
                logger.exception("a simulated member could not receive")
                await asyncio.sleep(1)
                continue
            self.heard += 1
            if message["type"] != "crowd.state":
                self.company = time.monotonic()


class Crowd:
    """The parties of this process, its share of what the browsers ask for."""

    def __init__(self, layer: Any, site: Site) -> None:
        self._layer = layer
        self._site = site
        self._parties: dict[str, Party] = {}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts to listen for what the browsers ask for."""
        channel = await self._layer.new_channel()
        await self._layer.group_add(CONTROL, channel)
        for work in (self._listen(channel), self._follow(), self._report()):
            self._tasks.append(asyncio.create_task(work))

    async def stop(self) -> None:
        """Sends everybody home and removes what this demo keeps in Redis."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for party in self._parties.values():
            party.wanted = 0
            while len(party):
                await party.step()
        # The prefix is this run's own, and all its processes stop together.
        await self._layer.flush()
        if hasattr(self._layer, "close_pools"):  # not every --backend has it
            await self._layer.close_pools()

    async def _listen(self, channel: str) -> None:
        while True:
            try:
                message = await self._layer.receive(channel)
            except Exception:
                logger.exception("could not receive what is asked for")
                await asyncio.sleep(1)
                continue
            if message["type"] == "process.kill":
                self._die(message["process"])
            else:
                self._resize(message["room"], message["size"])

    def _die(self, process: str) -> None:
        if process == self._site.name:
            os.kill(os.getpid(), signal.SIGKILL)

    def _resize(self, room: str, size: int) -> None:
        if room not in self._parties:
            self._parties[room] = Party(self._layer, room)
        self._want(self._parties[room], size)

    def _want(self, party: Party, size: int) -> None:
        processes = len(self._site.ports)
        party.total = size
        party.wanted = size // processes + (self._site.index < size % processes)
        party.company = time.monotonic()
        self._changed.set()

    async def _follow(self) -> None:
        # Many wishes may come while some members join; only the last one counts.
        while True:
            await self._changed.wait()
            self._changed.clear()
            for party in list(self._parties.values()):
                if len(party) == party.wanted:
                    continue
                self._changed.set()
                try:
                    await party.step()
                except Exception:
                    logger.exception("simulated members could not join or leave")
                    await asyncio.sleep(1)

    async def _report(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(REPORT_EVERY)
            for room, party in list(self._parties.items()):
                heard, party.heard = party.heard, 0
                rate = heard / (time.monotonic() - began)
                if time.monotonic() - party.company > ALONE_FOR:
                    self._want(party, 0)
                    party.company = time.monotonic()
                state = {
                    "type": "crowd.state",
                    "process": self._site.name,
                    "size": len(party),
                    "total": party.total,
                    "rate": round(rate),
                }
                if not party.total and not len(party):
                    del self._parties[room]
                try:
                    await self._layer.group_send(group_of(room), state)
                except Exception:
                    logger.exception("could not report the simulated members")


async def lifespan(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Runs the crowd from the start of the server process to its end."""
    await receive()
    try:
        crowd = Crowd(get_channel_layer(), settings.SITE)
        await crowd.start()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        await send({"type": "lifespan.startup.failed", "message": reason})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await crowd.stop()
    await send({"type": "lifespan.shutdown.complete"})
