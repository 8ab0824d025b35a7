"""What to come near to: the same commands without a layer.

These look like channel layers to the workloads, but their messages are bytes: a number
and as much as a layer would have packed. Nothing is named, checked, bounded or
unpacked; an `asyncio.Queue` for each receiver is all there is.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import defaultdict, deque
from time import monotonic
from typing import Any

import hiredis

from channels_redis_fast.commands.scripts import JOIN, MEMBERS, SEND, Script

ALL = b"\xff\xff\xff\xff"  # the route of a message to all channels of a process
ROUTE, NUMBER = 4, 8  # bytes
EXPIRY = 60
BATCH = 100


class Wire(asyncio.Protocol):
    """A socket to Redis: one write per loop iteration, replies first in, first out."""

    def __init__(self, pushed: Any = None) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._buffer: list[bytes] = []
        self._pushed = pushed

    @classmethod
    async def open(cls, host: str, port: int, pushed: Any = None) -> Wire:
        """A connection; `pushed` gets the name and payload of what is published."""
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(lambda: cls(pushed), host, port)
        return wire

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def call(self, *command: Any) -> asyncio.Future[Any]:
        """The reply to come."""
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._buffer.append(hiredis.pack_command(command))
        future = self._loop.create_future()
        self._waiting.append(future)
        return future

    def _flush(self) -> None:
        self._transport.write(b"".join(self._buffer))
        self._buffer.clear()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        gets = self._reader.gets
        while (reply := gets()) is not False:
            if self._pushed is not None and reply[0] == b"message":
                self._pushed(reply[1], reply[2])
                continue
            future = self._waiting.popleft()
            if future.done():
                continue
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    def close(self) -> None:
        """Closes the socket."""
        self._transport.abort()


Box = asyncio.Queue[bytes]


class Limit:
    """What both kinds share: numbered messages, and two connections."""

    skip = 0  # bytes in front of the number
    scripts: tuple[Script, ...] = ()

    def __init__(self, host: str, port: int, capacity: int, size: int) -> None:
        self._address = host, port
        self._capacity = capacity
        self._body = b"x" * size
        self._wires: list[Wire] = []
        self._wire: Wire | None = None  # for sends
        self._opening = asyncio.Lock()

    def message(self, number: int) -> bytes:
        """A message with this number."""
        return number.to_bytes(NUMBER, "big") + self._body

    def number(self, message: bytes) -> int:
        """The number of a message that was received."""
        return int.from_bytes(message[self.skip : self.skip + NUMBER], "big")

    async def _open(self, pushed: Any = None) -> Wire:
        wire = await Wire.open(*self._address, pushed)
        self._wires.append(wire)
        return wire

    async def _sending(self) -> Wire:
        """The connection for sends, to a server that knows the scripts."""
        async with self._opening:
            if self._wire is None:
                wire = await self._open()
                for script in self.scripts:
                    await wire.call(b"SCRIPT", b"LOAD", script.text)
                self._wire = wire
            return self._wire

    async def close(self) -> None:
        """Closes the connections."""
        for wire in self._wires:
            wire.close()


class LimitCore(Limit):
    """The core layer's scripts and pops. A member: route, number, body, names."""

    skip = ROUTE
    scripts = (SEND, MEMBERS, JOIN)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._client = uuid.uuid4().hex[:16]
        self._numbers = itertools.count()
        self._boxes: dict[bytes, dict[bytes, Box]] = {}  # by key and route
        self._routes: dict[str, tuple[bytes, bytes, bytes]] = {}  # key, route, name
        self._members: dict[str, tuple[int, dict[bytes, bytes]]] = {}
        self._clean_until: dict[str, float] = {}  # by group
        self._reading: list[asyncio.Task[None]] = []

    async def new_channel(self) -> str:
        """A name, whose last part is its route."""
        return await self._attend(f"specific.{self._client}!{next(self._numbers):016x}")

    async def group_add(self, group: str, channel: str) -> None:
        """Joins, as the layer does."""
        wire = self._wire or await self._sending()
        await self._run(wire, JOIN, f"asgi:group:{group}", 86400, channel)

    async def send(self, channel: str, message: bytes) -> None:
        """Adds a message to a key; it is confirmed."""
        wire = self._wire or await self._sending()
        key, route, name = self._routes.get(channel) or self._route(channel)
        member = b"".join((route, message, name))
        await self._run(wire, SEND, key, member, self._capacity, EXPIRY)

    async def group_send(self, group: str, message: bytes) -> None:
        """Asks for the members, and adds a message to each key they have."""
        wire = self._wire or await self._sending()
        members = await self._ask_members(wire, group)
        size, keys = self._members.get(group, (0, {}))
        if size != len(members):
            keys = _by_key(members)
            self._members[group] = len(members), keys
        for reply in [
            self._run(wire, SEND, key, ALL + message + names, self._capacity, EXPIRY)
            for key, names in keys.items()
        ]:
            await reply

    async def _ask_members(self, wire: Wire, group: str) -> list[bytes]:
        """As the layer does: old ones are removed once a second."""
        key, now = f"asgi:group:{group}", monotonic()
        if now < self._clean_until.get(group, 0.0):
            return await wire.call(b"ZRANGE", key, b"0", b"-1")
        self._clean_until[group] = now + 1
        return await self._run(wire, MEMBERS, key, 86400)

    async def receive(self, channel: str) -> bytes:
        """The next message of a channel."""
        key, route, _ = self._routes.get(channel) or self._route(channel)
        if key not in self._boxes:
            await self._attend(channel)
        return await self._boxes[key][route].get()

    async def close(self) -> None:
        """Also ends the pops."""
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        await super().close()

    def _run(self, wire: Wire, script: Any, key: Any, *args: Any) -> Any:
        return wire.call(*script.on(key, *args))

    def _route(self, channel: str) -> tuple[bytes, bytes, bytes]:
        shared, _, local = channel.partition("!")
        key = f"asgi{shared}!" if local else f"asgi{shared}"
        route = int(local or "0", 16).to_bytes(ROUTE, "big")
        self._routes[channel] = found = (key.encode(), route, channel.encode())
        return found

    async def _attend(self, channel: str) -> str:
        key, route, _ = self._route(channel)
        if is_new := key not in self._boxes:
            self._boxes[key] = {}
        self._boxes[key][route] = Box()
        if is_new:
            pop = self._pop(key, await self._open())
            self._reading.append(asyncio.ensure_future(pop))
        return channel

    async def _pop(self, key: bytes, wire: Wire) -> None:
        boxes = self._boxes[key]
        while True:
            first = wire.call(b"BZPOPMIN", key, 5)
            rest = await wire.call(b"ZPOPMIN", key, BATCH)
            found = first.result()
            if found is not None:
                self._deliver(boxes, found[1])
            for member in rest[::2]:
                self._deliver(boxes, member)

    def _deliver(self, boxes: dict[bytes, Box], member: bytes) -> None:
        route = member[:ROUTE]
        if route == ALL:
            for box in boxes.values():
                box.put_nowait(member)
        else:
            boxes[route].put_nowait(member)


def _by_key(members: list[bytes]) -> dict[bytes, bytes]:
    """For each key the names that a message would carry there."""
    names: dict[bytes, list[bytes]] = defaultdict(list)
    for member in members:
        shared, _, _ = member.partition(b"!")
        names[b"asgi" + shared + b"!"].append(member)
    return {key: b"".join(each) for key, each in names.items()}


class LimitPubSub(Limit):
    """PUBLISH and SUBSCRIBE. A payload: number, body."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._boxes: dict[str, Box] = {}
        self._names: dict[bytes, list[Box]] = defaultdict(list)
        self._subscribing: Wire | None = None

    async def new_channel(self) -> str:
        """A name that is subscribed."""
        channel = f"asgispecific.{uuid.uuid4().hex}"
        self._boxes[channel] = Box()
        await self._subscribe(channel, self._boxes[channel])
        return channel

    async def group_add(self, group: str, channel: str) -> None:
        """Subscribes the group, once for all channels."""
        await self._subscribe(f"asgi__group__{group}", self._boxes[channel])

    async def send(self, channel: str, message: bytes) -> None:
        """Publishes; it is confirmed."""
        wire = self._wire or await self._sending()
        await wire.call(b"PUBLISH", channel, message)

    async def group_send(self, group: str, message: bytes) -> None:
        """The same."""
        await self.send(f"asgi__group__{group}", message)

    async def receive(self, channel: str) -> bytes:
        """The next message of a channel."""
        return await self._boxes[channel].get()

    async def _subscribe(self, name: str, box: Box) -> None:
        boxes = self._names[name.encode()]
        boxes.append(box)
        if len(boxes) == 1:
            async with self._opening:
                if self._subscribing is None:
                    self._subscribing = await self._open(self._pushed)
            await self._subscribing.call(b"SUBSCRIBE", name)

    def _pushed(self, name: bytes, payload: bytes) -> None:
        for box in self._names[name]:
            box.put_nowait(payload)
