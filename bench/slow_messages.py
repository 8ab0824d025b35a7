"""Where the slowest 1 % of messages spend their time, at half of the maximum load.

    python bench/slow_messages.py [core | pubsub]

20 senders and a receiver share an event loop. For messages about the median and for the
slowest it prints how long they took (us), and how long of that the garbage collector
ran, this process and the server waited for a CPU (Linux's `schedstat`), and the loop
ran callbacks, of this message or others. Those overlap; the rest is Redis's.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
import sys
import time
from bisect import bisect_left, bisect_right
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from contenders import CONTENDERS, Setting, Texts
from support.servers import Server

SENDERS = 20
MESSAGES = 20_000  # in each run
CAPACITY = 1_000_000

Trip = tuple[float, float]  # when a message was sent, and came


class Spans:
    """For how long something went on, and until when (`time.monotonic()`)."""

    def __init__(self) -> None:
        self._ends: list[float] = []
        self._sums: list[float] = [0.0]

    def add(self, seconds: float) -> None:
        """It went on for so long, until now."""
        self._ends.append(time.monotonic())
        self._sums.append(self._sums[-1] + seconds)

    def within(self, trip: Trip) -> float:
        """How long of a trip it went on."""
        begin, end = bisect_left(self._ends, trip[0]), bisect_right(self._ends, trip[1])
        found = self._sums[end] - self._sums[begin]
        if end < len(self._ends):  # one may have begun, and ended later
            began = self._ends[end] - (self._sums[end + 1] - self._sums[end])
            found += max(0.0, trip[1] - began)
        return min(trip[1] - trip[0], found)


class Watch(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """A loop's selector, which notes at each turn what went on."""

    def __init__(self, server: int) -> None:
        super().__init__()
        self.collector, self.callbacks = Spans(), Spans()
        self.delays = {"self": Spans(), str(server): Spans()}
        self._waited = dict.fromkeys(self.delays, 0.0)
        self._back = self._began = time.monotonic()
        gc.callbacks.append(self._collect)

    def select(self, timeout: float | None = None) -> Any:
        """The end of one turn, and the beginning of the next."""
        self.callbacks.add(time.monotonic() - self._back)
        for process, spans in self.delays.items():
            text = Path(f"/proc/{process}/schedstat").read_text()
            waited = int(text.split()[1]) / 1e9
            spans.add(waited - self._waited[process])
            self._waited[process] = waited
        found = super().select(timeout)
        self._back = time.monotonic()
        return found

    def _collect(self, phase: str, _: dict[str, int]) -> None:
        if phase == "stop":
            self.collector.add(time.monotonic() - self._began)
        self._began = time.monotonic()


async def trips(layer: Any, rate: float | None) -> list[Trip]:
    """Sends all messages at a rate (messages/s), or as fast as it goes."""
    name, texts, sent = await layer.new_channel(), Texts(100), [0.0] * MESSAGES
    began = time.monotonic() + 0.1

    async def send(first: int) -> None:
        for number in range(first, MESSAGES, SENDERS):
            if rate is not None:
                at = began + number / rate
                await asyncio.sleep(max(0.0, at - time.monotonic()))
            sent[number] = time.monotonic()
            await layer.send(name, texts.message(number))

    senders = [asyncio.ensure_future(send(first)) for first in range(SENDERS)]
    found = []
    for _ in range(MESSAGES):
        number = texts.number(await layer.receive(name))
        found.append((sent[number], time.monotonic()))
    await asyncio.gather(*senders)
    return found


async def run(kind: str, url: str, watch: Watch) -> None:
    """Measures, and prints the table."""
    host, _, port = url.removeprefix("redis://").partition(":")
    layer = CONTENDERS[kind].make(Setting((host, int(port)), capacity=CAPACITY))
    full = await trips(layer, None)
    rate = MESSAGES / (full[-1][1] - full[0][0]) / 2
    found = sorted(await trips(layer, rate), key=lambda trip: trip[1] - trip[0])
    await layer.close_pools()
    middle, few = len(found) // 2, len(found) // 100
    spans = [watch.collector, *watch.delays.values(), watch.callbacks]
    print(f"{kind}, {rate:,.0f} messages/s: us in all, collector, CPU, its CPU, loop")
    for name, group in (
        ("median", found[middle - few : middle + few]),
        ("slowest", found[-few:]),
    ):
        means = [fmean(end - begin for begin, end in group)]
        means += [fmean(map(each.within, group)) for each in spans]
        print(f"{name:8}", *(f"{mean * 1e6:8.0f}" for mean in means))


if __name__ == "__main__":
    with Server() as server:
        watch = Watch(server.pid)
        loop = asyncio.SelectorEventLoop(watch)
        loop.run_until_complete(run(*(sys.argv[1:] or ["core"]), server.url, watch))
        loop.close()
