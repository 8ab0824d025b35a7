"""Layers that break one point each, to see that the check of the point notices."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache
from typing import Any

import msgpack
from channels.exceptions import ChannelFull, MessageTooLarge

from .sound import SoundLayer, until

FAULTS: dict[str, type[SoundLayer]] = {}

Faulty = type[SoundLayer]


def breaks(*points: str) -> Callable[[Faulty], Faulty]:
    """Names the points that a layer breaks."""

    def register(cls: Faulty) -> Faulty:
        FAULTS.update(dict.fromkeys(points, cls))
        return cls

    return register


# Messages

SPOILS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "byte strings": (bytes, lambda value: value.decode("latin-1")),
    "unicode strings": (str, lambda value: value.encode("ascii", "ignore").decode()),
    "integers": (int, float),
    "floating point numbers": (float, lambda value: round(value, 3)),
    "lists": (list, tuple),
    "dicts": (dict, lambda value: value or None),
    "booleans": (bool, int),
    "none": (type(None), lambda value: False),
}


def _spoils(kind: type, spoil: Callable[[Any], Any]) -> Faulty:
    def spoiled(value: Any) -> Any:
        if type(value) is kind and kind not in (list, dict):
            return spoil(value)
        if isinstance(value, list):
            value = [spoiled(item) for item in value]
        elif isinstance(value, dict):
            value = {key: spoiled(item) for key, item in value.items()}
        return spoil(value) if type(value) is kind else value

    class Spoils(SoundLayer):
        def decode(self, body: Any) -> Any:
            return spoiled(msgpack.unpackb(body))

    return Spoils


for _name, _how in SPOILS.items():
    FAULTS[_name] = _spoils(*_how)


@breaks("tuples as lists")
class KeepsTuples(SoundLayer):
    def encode(self, message: Any) -> Any:
        return deepcopy(message)

    def decode(self, body: Any) -> Any:
        return body


@breaks("messages are copies")
class PassesOn(KeepsTuples):
    def encode(self, message: Any) -> Any:
        return message


@breaks("only dicts")
class TakesAnything(SoundLayer):
    def encode(self, message: Any) -> Any:
        return msgpack.packb(message)


@breaks("members get copies")
class DecodesOnce(SoundLayer):
    decode = staticmethod(lru_cache(msgpack.unpackb))


@breaks("a megabyte")
class RefusesLarge(SoundLayer):
    def encode(self, message: Any) -> Any:
        body = super().encode(message)
        if len(body) > 100_000:
            raise MessageTooLarge
        return body


@breaks("a megabyte to a group")
class LosesLarge(SoundLayer):
    async def group_send(self, group: str, message: Any) -> None:
        if len(self.encode(message)) < 100_000:
            await super().group_send(group, message)


@breaks("too large raises")
class RaisesAnother(SoundLayer):
    def encode(self, message: Any) -> Any:
        try:
            return super().encode(message)
        except MessageTooLarge:
            raise ValueError("too large") from None


# What a layer has


@breaks("exceptions as attributes")
class OtherExceptions(SoundLayer):
    ChannelFull = ValueError


@breaks("extensions named")
class UnknownExtension(SoundLayer):
    extensions = ["groups", "rooms"]


@breaks("works by async to sync")
class OneThread(SoundLayer):
    async def send(self, channel: str, message: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            await super().send(channel, message)


# Names


@breaks("channel names")
class NoPeriods(SoundLayer):
    def check_channel(self, name: Any) -> None:
        super().check_channel(name.replace(".", "/", 1) if name[0] == "." else name)


@breaks("bad channel names", "bad group names")
class AnyName(SoundLayer):
    def check_channel(self, name: Any) -> None:
        pass

    def check_group(self, name: Any) -> None:
        pass

    def is_full(self, channel: str) -> bool:
        return False


@breaks("names of 100")
class ShortNames(SoundLayer):
    MAX_NAME_LENGTH = 100


@breaks("a mark in new channels")
class NoMark(SoundLayer):
    async def new_channel(self) -> str:
        return uuid.uuid4().hex


@breaks("new channels are new")
class OneChannel(SoundLayer):
    async def new_channel(self) -> str:
        return f"one.{self.client}!"


# Channels


@breaks("each gets its own")
class OneQueue(SoundLayer):
    def queue(self, channel: str) -> Any:
        return super().queue(self.non_local_name(channel))


@breaks("order", "order in groups")
class LastFirst(SoundLayer):
    def put(self, channel: str, body: Any) -> None:
        self.queue(channel).appendleft((time.monotonic() + self.expiry, body))


@breaks("once per process", "once per fleet")
class Doubles(SoundLayer):
    def put(self, channel: str, body: Any) -> None:
        super().put(channel, body)
        super().put(channel, body)


@breaks("waits to be read")
class KeepsNothing(SoundLayer):
    def put(self, channel: str, body: Any) -> None:
        pass


@breaks("messages expire")
class KeepsLong(SoundLayer):
    def put(self, channel: str, body: Any) -> None:
        self.queue(channel).append((time.monotonic() + 60, body))


@breaks("messages stay")
class KeepsBriefly(SoundLayer):
    def put(self, channel: str, body: Any) -> None:
        self.queue(channel).append((time.monotonic() + 0.3, body))


# Traffic


@breaks("ten thousand arrive")
class LosesSome(SoundLayer):
    count = 0

    def put(self, channel: str, body: Any) -> None:
        self.count += 1
        if self.count % 1000:
            super().put(channel, body)


@breaks("cancelled receives lose nothing", "neighbours come and go")
class LosesWhenCancelled(SoundLayer):
    async def receive(self, channel: str) -> Any:
        try:
            message = await super().receive(channel)
            await asyncio.sleep(0.002)
            return message
        except asyncio.CancelledError:
            for queue in self.queues.values():
                queue.clear()
            raise


@breaks("quiet beside busy")
class BusyFirst(SoundLayer):
    async def receive(self, channel: str) -> Any:
        others = self.queues.items
        await until(
            lambda: not any(queue for name, queue in others() if name != channel)
        )
        return await super().receive(channel)


@breaks("send never blocks")
class WaitsForRoom(SoundLayer):
    async def send(self, channel: str, message: Any) -> None:
        await until(lambda: not self.is_full(channel))
        await super().send(channel, message)


@breaks("full channels refuse")
class FullTooSoon(SoundLayer):
    def get_capacity(self, channel: str) -> int:
        return self.capacity // 2


@breaks("room when read")
class FullForEver(SoundLayer):
    def is_full(self, channel: str) -> bool:
        if super().is_full(channel):
            self.capacity = 0
        return super().is_full(channel)


@breaks("capacity of the process")
class CapacityOfTheChannel(SoundLayer):
    def is_full(self, channel: str) -> bool:
        return len(self.queue(channel)) >= self.get_capacity(channel)


@breaks("capacity by name")
class OneCapacity(SoundLayer):
    def get_capacity(self, channel: str) -> int:
        return self.capacity


@breaks("full members miss it")
class GroupsRaise(SoundLayer):
    async def group_send(self, group: str, message: Any) -> None:
        if any(map(self.is_full, self.members(group))):
            raise ChannelFull(group)
        await super().group_send(group, message)


# Groups


@breaks("all members get it")
class OneMember(SoundLayer):
    def members(self, group: str) -> list[str]:
        return super().members(group)[:1]


@breaks("any channel joins")
class OnlyItsOwn(SoundLayer):
    async def group_add(self, group: str, channel: str) -> None:
        if not channel.startswith(f"sound.{self.client}!"):
            raise RuntimeError("not mine")
        await super().group_add(group, channel)


@breaks("groups are separate")
class OneGroup(SoundLayer):
    def members(self, group: str) -> list[str]:
        return [name for one in self.groups for name in super().members(one)][:1]


@breaks("joining twice")
class JoinOnce(SoundLayer):
    async def group_add(self, group: str, channel: str) -> None:
        if channel in self.members(group):
            raise ValueError("is a member")
        await super().group_add(group, channel)


@breaks("leaving")
class NobodyLeaves(SoundLayer):
    async def group_discard(self, group: str, channel: str) -> None:
        self.check_group(group)


@breaks("leaving without joining")
class MembersLeave(SoundLayer):
    async def group_discard(self, group: str, channel: str) -> None:
        del self.groups[group][channel]


@breaks("group expiry is a property")
class ExactExpiry(SoundLayer):
    def __init__(self, group_expiry: float = 86_400.0, **options: Any) -> None:
        super().__init__(group_expiry=float(group_expiry), **options)


@breaks("group expiry is a day")
class ShortDay(SoundLayer):
    def __init__(self, group_expiry: int = 3600, **options: Any) -> None:
        super().__init__(group_expiry=group_expiry, **options)


@breaks("membership ends")
class MembersForEver(SoundLayer):
    def members(self, group: str) -> list[str]:
        return list(self.groups.get(group, {}))


@breaks("joining anew")
class FirstJoiningCounts(SoundLayer):
    async def group_add(self, group: str, channel: str) -> None:
        self.groups.setdefault(group, {}).setdefault(channel, time.monotonic())


@breaks("silence ends no membership")
class ForgetsTheSilent(SoundLayer):
    def members(self, group: str) -> list[str]:
        oldest = time.monotonic() - self.expiry
        joined = self.groups.get(group, {})
        return [channel for channel, when in joined.items() if when > oldest]


# Flush


@breaks("flush removes all", "flush for all clients")
class FlushesNoGroups(SoundLayer):
    async def flush(self) -> None:
        self.queues.clear()


@breaks("goes on after flush")
class FlushEnds(SoundLayer):
    async def flush(self) -> None:
        await super().flush()
        self.check_channel = self.check_group = None  # type: ignore[assignment]
