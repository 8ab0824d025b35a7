"""A day's work in minutes: a million messages while Redis fails in every way.

    python bench/soak.py [--messages 1000000] [--seed 1]

Two layers receive and one sends, as three processes would; `group_expiry` and `expiry`
pass a thousand times faster than in a day. Rounds of calm, in which every message
that was accepted has to arrive, once and in order, take turns with rounds of faults,
in which none may come twice and no consumer may fail. Consumers come and go all the
time. The exit status is 1 when a promise was broken or memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from redis import exceptions as errors

from channels_redis_fast.core import RedisChannelLayer
from support.polling import eventually
from support.servers import Server

GROUPS = [f"group{number}" for number in range(10)]
VISITORS = 100  # consumers that come and go
SENDERS = 8
CALM, STORM = 5.0, 3.0  # seconds of a round
LONGEST_PAUSE = 0.7  # seconds until a reader is back, and more
GROWTH = 4.0  # MiB that are no leak: fragments, caches
OPTIONS: dict[str, Any] = {
    "expiry": 5,
    "group_expiry": 20,
    "capacity": 50_000,
    "command_timeout": 1.0,
}


class Broken(Exception):
    """A promise was not kept."""


class Witness:
    """A consumer that stays, and what came to it from each sender."""

    def __init__(self, layer: RedisChannelLayer, channel: str) -> None:
        self.channel = channel
        self.received = 0
        self._layer = layer
        self._last: dict[str, int] = {}

    async def run(self, ordered: bool = True) -> None:
        """Receives for ever; raises when a message comes twice or out of order."""
        while True:
            message = await self._layer.receive(self.channel)
            source, number = message["from"], message["n"]
            if ordered and number <= self._last.get(source, -1):
                text = f"{number} after {self._last[source]} from {source}"
                raise Broken(f"{self.channel}: {text}")
            self._last[source] = number
            self.received += 1


class Soak:
    """The layers, who sends and receives, and what was counted."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.readers = [RedisChannelLayer([server.url], **OPTIONS) for _ in range(2)]
        self.sender = RedisChannelLayer([server.url], **OPTIONS)
        self.accepted = self.deliveries = self.visits = self.lost = 0
        self.refused: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.expected: Counter[str] = Counter()  # since the calm began, by channel
        self.members: list[Witness] = []
        self.workers = [Witness(layer, "worker") for layer in self.readers]
        self._tasks: list[asyncio.Task[None]] = []
        self._numbers: Counter[str] = Counter()
        self._pause = asyncio.Event()
        self._sending = 0

    async def start(self) -> None:
        """Lets everybody begin."""
        for layer in self.readers:
            for group in GROUPS:
                witness = Witness(layer, await layer.new_channel())
                await layer.group_add(group, witness.channel)
                self.members.append(witness)
        for member in self.members:
            self._begin(member.run())
        for worker in self.workers:  # two readers have no common order
            self._begin(worker.run(ordered=False))
        for number in range(VISITORS):
            self._begin(self._visit(self.readers[number % 2]))
        for number in range(SENDERS):
            self._begin(self._send(f"sender{number}"))

    async def stop(self) -> None:
        """Ends all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for layer in (*self.readers, self.sender):
            await layer.close_pools()

    def _begin(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))

    def check(self) -> None:
        """Raises what ended a task that should go on."""
        for task in self._tasks:
            if task.done():
                task.result()

    # What goes on

    async def _visit(self, layer: RedisChannelLayer) -> None:
        """One consumer after the other; each ends in the middle of something."""
        while True:
            self.visits += 1
            name = await layer.new_channel()
            try:
                await layer.group_add(random.choice(GROUPS), name)
                for _ in range(random.randrange(50)):
                    await layer.receive(name)
                    self.deliveries += 1
                seconds = random.uniform(0, 0.02)
                await asyncio.wait_for(layer.receive(name), seconds)
            except asyncio.TimeoutError:
                pass
            except errors.ConnectionError:
                await asyncio.sleep(0.05)

    async def _send(self, source: str) -> None:
        while True:
            if self._pause.is_set():
                await asyncio.sleep(0.01)
                continue
            self._sending += 1
            try:
                await self._send_one(source)
            except (errors.ConnectionError, errors.ReadOnlyError) as error:
                self.refused[type(error).__name__] += 1
                await asyncio.sleep(0.01)
            finally:
                self._sending -= 1

    async def _send_one(self, source: str) -> None:
        kind = random.random()
        if kind < 0.3:
            group = random.choice(GROUPS)
            to = self.members[GROUPS.index(group) :: len(GROUPS)]
            call: Callable[..., Awaitable[None]] = self.sender.group_send
            target, channels = group, [witness.channel for witness in to]
        elif kind < 0.7:
            target = random.choice(self.members).channel
            call, channels = self.sender.send, [target]
        else:
            call, target, channels = self.sender.send, "worker", ["worker"]
        self._numbers[source] += 1
        await call(target, {"type": "m", "from": source, "n": self._numbers[source]})
        self.accepted += 1
        self.expected.update(channels)

    # Rounds

    def received(self) -> Counter[str]:
        """How much came to each channel so far."""
        found: Counter[str] = Counter()
        for witness in (*self.members, *self.workers):
            found[witness.channel] += witness.received
        return found

    async def quiet(self) -> None:
        """Senders pause, and all that is on its way arrives."""
        self._pause.set()
        await eventually(lambda: not self._sending, "the senders to pause")
        before = None
        while before != (before := self.received()):  # noqa: ASYNC110
            await asyncio.sleep(LONGEST_PAUSE)

    async def calm(self) -> None:
        """Nothing fails, so everything that is accepted arrives."""
        await self.quiet()
        before = self.received()
        self.expected.clear()
        self.refused.clear()
        self._pause.clear()
        await asyncio.sleep(CALM)
        self.check()
        await self.quiet()
        came = self.received() - before
        if came != self.expected or self.refused:
            wrong = {"missing": self.expected - came, "too much": came - self.expected}
            raise Broken(f"in calm: {wrong}, refused {self.refused}")

    async def storm(self, fault: Callable[[], Awaitable[None]]) -> None:
        """A fault under load; what was accepted and then lost is counted."""
        await self.quiet()
        before = self.received()
        self.expected.clear()
        self._pause.clear()
        await asyncio.sleep(STORM / 4)
        await fault()
        await asyncio.sleep(STORM / 4 * 3)
        await self._whole_again()
        self.check()
        await self.quiet()
        came = self.received() - before
        self.lost += sum((self.expected - came).values())
        self.faults[fault.__name__] += 1

    async def _whole_again(self) -> None:
        """Waits until the connections of all layers are back."""
        deadline = time.monotonic() + 10
        for layer in (*self.readers, self.sender):
            while True:
                try:
                    await layer.group_discard("nobody", "nobody")
                    break
                except errors.RedisError:
                    if time.monotonic() > deadline:
                        raise
                    await asyncio.sleep(0.01)

    # Faults

    async def killed_clients(self) -> None:
        """CLIENT KILL, again and again."""
        for _ in range(10):
            client = self.server.client()
            client.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0.1)

    async def restarted_empty(self) -> None:
        """kill -9, and an empty server a while later."""
        await asyncio.to_thread(self.server.kill)
        await asyncio.sleep(random.uniform(0, 1))
        await asyncio.to_thread(self.server.start)

    async def restarted_with_data(self) -> None:
        """The same, and the server has its data of before.

        It is old data, in which messages are that were received since: not under load.
        """
        await self.quiet()
        await asyncio.to_thread(self.server.restart, empty=False)
        self._pause.clear()

    async def silence(self) -> None:
        """SIGSTOP for longer than a call may take."""
        self.server.pause()
        await asyncio.sleep(1.5)
        self.server.resume()

    async def forgotten_scripts(self) -> None:
        """SCRIPT FLUSH."""
        for _ in range(20):
            self.server.client().script_flush()
            await asyncio.sleep(0.01)

    # Measures

    def memory(self) -> float:
        """The resident memory of this process (MiB)."""
        gc.collect()
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def sizes(self) -> tuple[int, int, int, int]:
        """Mailboxes, memberships, tasks and descriptors."""
        return (
            sum(len(layer._mailboxes) for layer in self.readers),
            sum(len(layer._memberships) for layer in self.readers),
            len(asyncio.all_tasks()),
            len(os.listdir("/proc/self/fd")),
        )


async def soak(server: Server, messages: int) -> bool:
    """Runs until so many messages were accepted; whether memory stayed flat."""
    run = Soak(server)
    faults = [
        run.killed_clients,
        run.restarted_empty,
        run.forgotten_scripts,
        run.silence,
        run.restarted_with_data,
    ]
    began, memory = time.monotonic(), []
    print("     s      sent  delivered  visits  lost    MiB  boxes members tasks fds")
    await run.start()
    try:
        for turn in range(10**6):
            await run.calm()
            await run.storm(faults[turn % len(faults)])
            memory.append(run.memory())
            delivered = run.deliveries + sum(run.received().values())
            boxes, members, tasks, files = run.sizes()
            print(
                f"{time.monotonic() - began:6.0f} {run.accepted:9} {delivered:10}"
                f" {run.visits:7} {run.lost:5} {memory[-1]:6.1f}"
                f" {boxes:6} {members:7} {tasks:5} {files:3}",
                flush=True,
            )
            if run.accepted >= messages and turn >= len(faults):
                break
    finally:
        await run.stop()
    dropped = Counter[str]()
    for layer in (*run.readers, run.sender):
        dropped.update(layer.counters)
    print(f"faults: {dict(run.faults)}")
    print(f"counted by the layers: {dict(dropped)}")
    # The first rounds fill caches and pools of memory.
    early = sorted(memory[len(memory) // 4 : len(memory) // 2 + 1])
    late = sorted(memory[-len(memory) // 4 :])
    grown = late[len(late) // 2] - early[len(early) // 2]
    print(f"memory grew by {grown:+.1f} MiB from the second quarter to the last")
    return grown <= GROWTH


def main() -> None:
    """Soaks, and says by the exit status whether it went well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random.seed(options.seed)
    logging.getLogger("channels_redis_fast").setLevel(logging.ERROR)
    with Server() as server:
        try:
            flat = asyncio.run(soak(server, options.messages))
        except Broken as error:
            sys.exit(f"broken: {error}")
    sys.exit(None if flat else "memory grew")


if __name__ == "__main__":
    main()
