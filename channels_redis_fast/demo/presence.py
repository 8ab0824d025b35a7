"""Who is in a room, by the layer's word: asked once a second for all browsers here."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

LOOK_EVERY = 1.0
CROWD = "crowd"  # what the channels of simulated members begin with

logger = logging.getLogger(__name__)


class Watch:
    """Tells the browsers of a room in this process who is in it, when that changes."""

    def __init__(self, layer: Any, group: str) -> None:
        self.browsers: set[str] = set()  # their channels
        self._layer = layer
        self._group = group
        self._told: list[str] | None = None
        self._task = asyncio.create_task(self._work())

    def add(self, channel: str) -> None:
        """Tells a newcomer, too."""
        self.browsers.add(channel)
        self._told = None

    def stop(self) -> None:
        """Ends it, when there is nobody to tell."""
        self._task.cancel()

    async def _work(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:
                self._told = None
                logger.exception("could not tell who is here")
            await asyncio.sleep(LOOK_EVERY)

    async def _look(self) -> None:
        members = await self._layer.group_members(self._group)
        present = [one for one in members if not one.startswith(f"{CROWD}.")]
        if present == self._told:
            return
        self._told = present
        event = {"type": "room.present", "ids": present}
        await self._layer.send_many([(channel, event) for channel in self.browsers])


_watches: dict[str, Watch] = {}  # by group


def enter(layer: Any, group: str, channel: str) -> None:
    """From now on a browser's channel is sent who is in the group: `room.present`."""
    if group not in _watches:
        _watches[group] = Watch(layer, group)
    _watches[group].add(channel)


def leave(group: str, channel: str) -> None:
    """A browser is gone, if it was there; with the last one ends the asking."""
    if (watch := _watches.get(group)) is None:
        return
    watch.browsers.discard(channel)
    if not watch.browsers:
        watch.stop()
        del _watches[group]
