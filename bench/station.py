"""One layer in one process, and its part in a measurement.

Clocks are `time.monotonic`, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull

from contenders import CONTENDERS, Setting, Texts, close_layer
from limits import Limit
from tally import Tally, tally

RETRY = 0.001  # seconds after which a sender tries a full channel again
IDLE = 2.0  # seconds without a message, after which the rest is lost
STEP = 0.1  # seconds between looks whether anything comes
QUIET = 0.02  # seconds to see whether something comes twice
JOINING = 50  # calls at a time that prepare a group


class Arrivals(NamedTuple):
    """What came to one process."""

    last: float  # when the last one did
    tally: Tally
    logs: list[list[int]]  # the numbers by reader, if asked for
    times: list[float]  # of each message, if asked for


class Station:
    """What a worker does with its layer; all methods are called over the pipe."""

    def __init__(
        self, layer: Any, size: int, *, blocking: bool = False, follows: bool = False
    ) -> None:
        self.layer = layer
        self._blocking = blocking
        self._join = "group_join" if follows else "group_add"
        self._messages = layer if isinstance(layer, Limit) else Texts(size)
        self._tasks: list[asyncio.Task[None]] = []
        self._logs: list[list[int]] = []
        self._times: list[float] | None = None
        self._left = 0
        self._arrived = asyncio.Event()
        self._last = 0.0

    @classmethod
    def of(cls, contender: str, setting: Setting) -> Station:
        """With a layer of a contender."""
        chosen = CONTENDERS[contender]
        made = chosen.make(setting)
        ways = {"blocking": chosen.blocking, "follows": chosen.follows}
        return cls(made, setting.size, **ways)

    async def close(self) -> None:
        """Ends the receivers, then the layer's connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await close_layer(self.layer)

    async def cpu(self) -> float:
        """Seconds of CPU that this process took so far."""
        return time.process_time()

    # Receiving

    async def listen(self, members: int, group: str | None = None) -> list[str]:
        """New channels, perhaps in a group, on which receivers wait."""
        names: list[str] = []

        async def join() -> None:
            names.append(await self.layer.new_channel())
            if group is not None:
                await getattr(self.layer, self._join)(group, names[-1])

        for begin in range(0, members, JOINING):
            ahead = min(JOINING, members - begin)
            await asyncio.gather(*(join() for _ in range(ahead)))
        for name in names:
            await self.read(name)
        return names

    async def read(self, channel: str) -> None:
        """One more receiver on a channel."""
        self._logs.append([])
        self._tasks.append(asyncio.ensure_future(self._receive(channel)))
        await asyncio.sleep(0)

    async def _receive(self, channel: str) -> None:
        receive, number, log = self.layer.receive, self._messages.number, self._logs[-1]
        while True:
            log.append(number(await receive(channel)))
            if self._times is not None:
                self._times.append(time.monotonic())
            self._left -= 1
            if not self._left:
                self._last = time.monotonic()
                self._arrived.set()

    async def expect(self, arrivals: int, stamped: bool = False) -> None:
        """Forgets what came, and waits for so many."""
        for task in self._tasks:
            if task.done():
                task.result()
        for log in self._logs:
            log.clear()
        self._times = [] if stamped else None
        self._left = arrivals
        self._arrived.clear()
        self._last = time.monotonic()
        gc.collect()

    async def progress(self) -> int:
        """How many came so far."""
        return sum(map(len, self._logs))

    async def collect(self, numbers: range, senders: int = 1) -> Arrivals:
        """What came of these numbers, to each receiver; waits for all."""
        left, changed = self._left, time.monotonic()
        if not self._arrived.is_set():
            self._last = changed  # or before, if what is missing never comes
        while not self._arrived.is_set():
            try:
                await asyncio.wait_for(self._arrived.wait(), STEP)
            except asyncio.TimeoutError:
                now = time.monotonic()
                if self._left != left:
                    left, changed = self._left, now
                    self._last = now
                elif now - changed > IDLE:
                    break
        await asyncio.sleep(QUIET)
        found = sum((tally(log, numbers, senders) for log in self._logs), Tally())
        return Arrivals(self._last, found, [], [])

    async def logs(self) -> Arrivals:
        """All that came so far, as it came."""
        times = self._times or []
        last = times[-1] if times else self._last
        return Arrivals(last, Tally(), self._logs, times)

    # Sending. Each method returns when it began.

    async def send(self, channel: str, numbers: range, senders: int) -> float:
        """Several senders to one channel, each one message after the other."""
        began = time.monotonic()
        await asyncio.gather(
            *(self._send(channel, numbers[each::senders]) for each in range(senders))
        )
        await self._flush()
        return began

    async def _send(self, channel: str, numbers: Iterable[int]) -> None:
        send, message = self.layer.send, self._messages.message
        for number in numbers:
            while True:
                try:
                    await send(channel, message(number))
                except ChannelFull:
                    await asyncio.sleep(RETRY)
                else:
                    break

    async def send_paced(
        self, channel: str, numbers: range, senders: int, rate: float
    ) -> list[float]:
        """The same at a fixed rate; when each message was due or, if later because
        the timers of the event loop are coarse, was sent."""
        began = time.monotonic()
        stamps = [0.0] * len(numbers)

        async def work(first: int) -> None:
            for index in range(first, len(numbers), senders):
                due = began + index / rate
                pause = due - time.monotonic()
                if pause > 0:
                    await asyncio.sleep(pause)
                    due = time.monotonic()
                stamps[index] = due
                await self._send(channel, numbers[index : index + 1])

        await asyncio.gather(*(work(first) for first in range(senders)))
        await self._flush()
        return stamps

    async def send_group(self, group: str, numbers: range, senders: int = 1) -> float:
        """Several senders to a group, each one message after the other."""
        began = time.monotonic()
        parts = (numbers[each::senders] for each in range(senders))
        await asyncio.gather(*(self._send_group(group, part) for part in parts))
        await self._flush()
        return began

    async def _send_group(self, group: str, numbers: range) -> None:
        group_send, message = self.layer.group_send, self._messages.message
        for number in numbers:
            await group_send(group, message(number))

    async def call_group(self, group: str, numbers: range) -> float:
        """The same from a thread without an event loop."""
        call = (
            self.layer.sync.group_send
            if self._blocking
            else lambda *args: async_to_sync(self.layer.group_send)(*args)
        )
        return await asyncio.to_thread(self._call, call, group, numbers)

    def _call(self, call: Callable[..., None], group: str, numbers: range) -> float:
        began = time.monotonic()
        for number in numbers:
            call(group, self._messages.message(number))
        return began

    async def _flush(self) -> None:
        flush: Callable[[], Awaitable[None]] | None
        if flush := getattr(self.layer, "flush_sends", None):
            await flush()

    # There and back

    async def open(self) -> str:
        """A new channel on which nobody waits yet."""
        name: str = await self.layer.new_channel()
        return name

    async def answer(self, ping: str, pong: str) -> None:
        """Sends back what comes, with its number, for ever."""

        async def work() -> None:
            layer, messages = self.layer, self._messages
            while True:
                number = messages.number(await layer.receive(ping))
                await layer.send(pong, messages.message(number))

        self._tasks.append(asyncio.ensure_future(work()))
        await asyncio.sleep(0)

    async def ping(
        self, ping: str, pong: str, numbers: range
    ) -> tuple[float, float, Tally, list[float]]:
        """When it began and ended, and how long each message took there and back."""
        layer, messages = self.layer, self._messages
        came: list[int] = []
        taken: list[float] = []
        began = sent = 0.0

        async def work() -> None:
            nonlocal began, sent
            began = sent = time.monotonic()
            for number in numbers:
                await layer.send(ping, messages.message(number))
                came.append(messages.number(await layer.receive(pong)))
                now = time.monotonic()
                taken.append(now - sent)
                sent = now

        gc.collect()
        working, done = asyncio.ensure_future(work()), -1
        while not working.done() and done != (done := len(came)):
            await asyncio.wait([working], timeout=IDLE)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return began, sent, tally(came, numbers), taken

    # Groups

    async def join(self, numbers: range) -> tuple[float, list[float]]:
        """How long a channel took to join groups whose only member it was, each."""
        layer, join = self.layer, getattr(self.layer, self._join)
        channel, taken = await layer.new_channel(), []
        gc.collect()
        began = time.monotonic()
        for number in numbers:
            sent = time.monotonic()
            await join(f"group-{number}", channel)
            taken.append(time.monotonic() - sent)
            await layer.group_discard(f"group-{number}", channel)
        return time.monotonic() - began, taken

    # At rest

    async def rest(self, members: int, seconds: float) -> tuple[float, float]:
        """Bytes per receiver that waits, and the share of a CPU that all take."""
        await self.listen(1)
        await asyncio.sleep(0.2)
        gc.collect()
        before = _resident()
        await self.listen(members)
        await asyncio.sleep(0.5)
        gc.collect()
        grown = _resident() - before
        cpu = time.process_time()
        await asyncio.sleep(seconds)
        return grown / members, (time.process_time() - cpu) / seconds


def _resident() -> int:
    """The resident memory of this process, in bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
