"""A room full of traffic: everybody sends numbered messages, and books are kept."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from channels.exceptions import ChannelFull
from redis import exceptions as errors

from support.following import GROUP
from support.layers import end
from support.ledger import (
    ACCEPTED,
    LEFT_OUT,
    UNDER_WAY,
    Addressee,
    Ledger,
    Numbers,
    Promise,
    Source,
    Verdict,
)
from support.polling import eventually

T = TypeVar("T")

PAUSE = 0.005  # seconds between the messages of one source
SOURCES = 2  # of each channel and group
MEMBERS = 2  # of the group in each process
MORE = 4  # messages of each source that show that it goes on
NORMAL = "worker"
NORMAL_LINE = "normal channel"

Send = Callable[[str, dict[str, Any]], Awaitable[None]]


async def at_last(call: Callable[..., Awaitable[T]], *args: Any) -> T:
    """What a call returns that may be made twice, however busy the machine is."""
    deadline = asyncio.get_running_loop().time() + 20
    while True:
        try:
            return await call(*args)
        except errors.RedisError:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.01)


class Room:
    """Layers that receive, as two processes do, and one that sends to them.

    Each process has a channel that gets direct messages, and members of a group;
    the first one also receives on a normal channel. Messages come from several
    sources to each of these, all the time from `open` to `close`.
    """

    def __init__(self, readers: list[Any], sender: Any) -> None:
        self.readers = readers
        self.sender = sender
        self.ledger = Ledger()
        self.channels: list[str] = []  # those of direct messages
        self._parcels: dict[str, int] = {}  # bytes, by route
        self._loop = asyncio.get_running_loop()
        self._senders: list[asyncio.Task[None]] = []
        self._receivers: list[asyncio.Task[None]] = []
        self._sending = True
        self._watch = _LeftOut()

    @property
    def lines(self) -> list[str]:
        """What loses messages together: each process, and the normal channel."""
        return list(dict.fromkeys(one.line for one in self.ledger.addressees))

    # Its life

    async def open(self) -> None:
        """Lets everybody begin; returns when everybody hears everybody."""
        self._watch.install()
        await self._fill()
        await self.goes_on()
        self.ledger.began = self._loop.time()

    async def _fill(self) -> None:
        send, group_send = self.sender.send, self.sender.group_send
        group = self._sources("group", GROUP)
        for number, layer in enumerate(self.readers):
            line = f"process {number}"
            name = await at_last(layer.new_channel)
            self.channels.append(name)
            direct = self._sources("direct", name)
            self._receive(layer, name, Addressee(line, direct))
            self._begin(direct, send, name)
            for _ in range(MEMBERS):
                member = await at_last(layer.new_channel)
                await at_last(layer.group_add, GROUP, member)
                self._receive(layer, member, Addressee(line, group))
        self._begin(group, group_send, GROUP)
        normal = self._sources("normal", NORMAL)
        self._receive(self.readers[0], NORMAL, Addressee(NORMAL_LINE, normal))
        self._begin(normal, send, NORMAL)

    async def finish(self, promise: Promise) -> Verdict:
        """Ends the traffic when all that is on its way has come; judges."""
        await self.goes_on()
        self._sending = False
        await asyncio.gather(*self._senders)
        # Order is kept: who has the last of each source has all, or never will.
        last = {name: n - 1 for name, n in self.ledger.next().items()}
        await self._everybody_has(last)
        return self.ledger.verdict(promise)

    async def close(self) -> None:
        """Ends everything, whatever happened."""
        self._watch.remove()
        await end(*self._senders, *self._receivers)

    # What faults use

    async def goes_on(self) -> None:
        """Returns when everybody heard from each source what was sent after now."""
        wanted = {name: n + MORE for name, n in self.ledger.next().items()}
        await self._everybody_has(wanted)

    @contextlib.asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """Surrounds what may cost messages; ends when everybody hears everybody."""
        outage = self.ledger.begin_outage()
        yield
        outage.over = self.ledger.next()
        await self.goes_on()

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Surrounds what may cost nothing; ends when everybody hears everybody."""
        yield
        await self.goes_on()

    def send_parcel(self, route: str, size: int) -> None:
        """The next message of a route is so large (bytes)."""
        self._parcels[route] = size

    def refused(self, name: str) -> int:
        """How many sends got an error of this name."""
        return sum(one.outcomes.count(name) for one in self.ledger.sources.values())

    # Steps

    def _sources(self, route: str, target: str) -> list[Source]:
        sources = [Source(f"{route} {target} {n}", route) for n in range(SOURCES)]
        self.ledger.sources.update((source.name, source) for source in sources)
        return sources

    def _begin(self, sources: list[Source], send: Send, target: str) -> None:
        for source in sources:
            work = self._send_all(source, send, target)
            self._senders.append(self._loop.create_task(work))

    def _receive(self, layer: Any, channel: str, addressee: Addressee) -> None:
        self.ledger.addressees.append(addressee)
        work = self._receive_all(layer, channel, addressee)
        self._receivers.append(self._loop.create_task(work))

    async def _send_all(self, source: Source, send: Send, target: str) -> None:
        for number in itertools.count():
            message: dict[str, Any] = {"type": "said", "from": source.name, "n": number}
            if source.route in self._parcels:
                message["parcel"] = bytes(self._parcels.pop(source.route))
            await self._send(source, send, target, message)
            if not self._sending and source.outcomes[-1] == ACCEPTED:
                return
            await asyncio.sleep(PAUSE)

    async def _send(
        self, source: Source, send: Send, target: str, message: dict[str, Any]
    ) -> None:
        source.outcomes.append(UNDER_WAY)
        try:
            await send(target, message)
        except (ChannelFull, errors.RedisError) as error:
            source.outcomes[-1] = type(error).__name__
        else:
            source.outcomes[-1] = self._outcome()

    def _outcome(self) -> str:
        """What came of a send that returned, in this task."""
        return LEFT_OUT if self._watch.saw_one() else ACCEPTED

    async def _receive_all(self, layer: Any, channel: str, one: Addressee) -> None:
        sources = {source.name: source for source in one.sources}
        while True:
            message = self._read(one, await layer.receive(channel))
            if message is None:
                continue
            name, number = message.get("from"), message.get("n", -1)
            known = name in sources and 0 <= number < len(sources[name].outcomes)
            if known and message.keys() <= {"type", "from", "n", "parcel"}:
                one.note((name, number), self._loop.time())
            else:
                self.ledger.invented.append(message)

    def _read(self, one: Addressee, message: dict[str, Any]) -> dict[str, Any] | None:
        """A message as it was sent; None: it is the layer's own."""
        return message

    async def _everybody_has(self, numbers: Numbers) -> None:
        """Waits until these or later ones came; raises what ended a task."""
        tasks = [*self._senders, *self._receivers]

        def done() -> bool:
            for task in tasks:
                if task.done():
                    task.result()
            return not deaf()

        def deaf() -> list[str]:
            found = self.ledger.addressees
            return [one.line for one in found if not one.has_all(numbers)]

        try:
            await eventually(done, "everybody to hear everybody", timeout=20)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; these don't: {deaf()}") from error


class _LeftOut(logging.Handler):
    """Notes whose `group_send` left out a process that was full: the log says so."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._logger = logging.getLogger("channels_redis_fast")
        self._level = self._logger.level
        self._tasks: set[asyncio.Task[Any] | None] = set()

    def install(self) -> None:
        """Begins to read the log."""
        self._logger.setLevel(logging.INFO)
        self._logger.addHandler(self)

    def remove(self) -> None:
        """Ends it."""
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)

    def emit(self, record: logging.LogRecord) -> None:
        """Looks at one line of the log."""
        if "over capacity in group" in record.msg:
            self._tasks.add(asyncio.current_task())

    def saw_one(self) -> bool:
        """Whether this task's last call left one out."""
        found = asyncio.current_task() in self._tasks
        self._tasks.discard(asyncio.current_task())
        return found
