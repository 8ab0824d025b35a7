"""Faults that the history of a group doesn't survive: who follows it is told."""

from __future__ import annotations

import asyncio
from typing import Any

from support.accounting import Room
from support.clusters import slot_of
from support.inflicting import keys_of


async def histories_evicted(scene: Any, room: Room, times: int) -> None:
    """What is kept of a group is gone, and where it was."""
    admin = scene.server.client()
    for _ in range(times):
        async with room.outage():
            assert admin.delete(*admin.scan_iter("asgi:[ph]*:{*")) == 2


async def slot_moved(scene: Any, room: Room, times: int) -> None:
    """The slot of the group moves to another node and back, all its keys at once."""
    _, key, _ = keys_of(room)
    source = scene.cluster.node_of(key)
    others = [one for one in scene.cluster.primaries if one is not source]
    for target in [others[0], source] * times:
        async with room.outage():
            await asyncio.to_thread(scene.cluster.migrate_slot, slot_of(key), target)


async def laggard_promoted(scene: Any, room: Room, times: int) -> None:
    """A replica that heard nothing for a while becomes the primary, which is killed."""
    for turn in range(times):
        async with room.outage():
            old, (replica,) = scene.sentinels.primary, scene.sentinels.replicas
            replica.client().replicaof("127.0.0.1", 1)
            await room.goes_on()
            old.kill()
            replica.client().replicaof("NO", "ONE")
            await asyncio.to_thread(scene.sentinels.await_other, old)
        if turn < times - 1:
            await asyncio.to_thread(scene.sentinels.revive, old)
