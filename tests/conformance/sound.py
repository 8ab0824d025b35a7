"""A small layer that keeps every point, for faults to be put into."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

import msgpack
from channels.exceptions import ChannelFull, MessageTooLarge
from channels.layers import BaseChannelLayer

Queue = deque[tuple[float, Any]]


async def until(check: Callable[[], Any]) -> None:
    """Returns when a check holds; there is no more between the two."""
    while True:
        if check():
            return
        await asyncio.sleep(0.001)


class SoundLayer(BaseChannelLayer):
    """In one process, and no faster than it must be."""

    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge
    MAX_NAME_LENGTH = 101
    extensions = ["groups", "flush"]

    def __init__(
        self,
        expiry: float = 60,
        group_expiry: int = 86_400,
        capacity: int = 100,
        channel_capacity: Any = None,
        max_message_size: int = 1 << 26,
    ) -> None:
        rules = self.compile_capacities(channel_capacity or {})
        super().__init__(expiry=expiry, capacity=capacity, channel_capacity=rules)
        self.channel_capacity = rules
        self.group_expiry = group_expiry
        self.max_message_size = max_message_size
        self.client = uuid.uuid4().hex
        self.queues: dict[str, Queue] = {}
        self.groups: dict[str, dict[str, float]] = {}

    async def send(self, channel: str, message: Any) -> None:
        self.check_channel(channel)
        body = self.encode(message)
        if self.is_full(channel):
            raise ChannelFull(channel)
        self.put(channel, body)

    async def receive(self, channel: str) -> Any:
        self.check_channel(channel)
        await until(lambda: self.queue(channel))
        return self.decode(self.queue(channel).popleft()[1])

    async def new_channel(self) -> str:
        return f"sound.{self.client}!{uuid.uuid4().hex}"

    async def group_add(self, group: str, channel: str) -> None:
        self.check_group(group)
        self.check_channel(channel)
        self.groups.setdefault(group, {})[channel] = time.monotonic()

    async def group_discard(self, group: str, channel: str) -> None:
        self.check_group(group)
        self.groups.get(group, {}).pop(channel, None)

    async def group_send(self, group: str, message: Any) -> None:
        self.check_group(group)
        body = self.encode(message)
        for channel in self.members(group):
            if not self.is_full(channel):
                self.put(channel, body)

    async def flush(self) -> None:
        self.queues.clear()
        self.groups.clear()

    # What faults override

    def check_channel(self, name: Any) -> None:
        if not name.isascii() or name.endswith("\n"):
            raise TypeError(name)
        self.require_valid_channel_name(name)

    def check_group(self, name: Any) -> None:
        if "!" in name:
            raise TypeError(name)
        self.check_channel(name)

    def encode(self, message: Any) -> Any:
        if not isinstance(message, dict):
            raise TypeError(message)
        body = msgpack.packb(message)
        if len(body) > self.max_message_size:
            raise MessageTooLarge
        return body

    def decode(self, body: Any) -> Any:
        return msgpack.unpackb(body)

    def queue(self, channel: str) -> Queue:
        """What waits for a channel, without what is too old."""
        queue = self.queues.setdefault(channel, deque())
        while queue and queue[0][0] < time.monotonic():
            queue.popleft()
        return queue

    def put(self, channel: str, body: Any) -> None:
        self.queue(channel).append((time.monotonic() + self.expiry, body))

    def is_full(self, channel: str) -> bool:
        part = self.non_local_name(channel)
        waiting = sum(
            len(queue)
            for name, queue in self.queues.items()
            if self.non_local_name(name) == part
        )
        return waiting >= self.get_capacity(channel)

    def members(self, group: str) -> list[str]:
        oldest = time.monotonic() - self.group_expiry
        joined = self.groups.get(group, {})
        return [channel for channel, when in joined.items() if when > oldest]
