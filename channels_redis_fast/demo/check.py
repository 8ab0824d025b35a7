"""The check: WebSocket clients that account for every message, without a browser."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection, connect

from channels_redis_fast.demo.site import process_name
from channels_redis_fast.demo.tally import Speaker, Tally, quantile

ROOM_SIZE = 10
PATIENCE = 5.0  # a delivery that takes longer is no longer waited for
QUIET = 0.3  # how long to listen for second copies after the last message
PINGS = 200
REPORT_EVERY = 5.0

Json = dict[str, Any]


class Trouble(Exception):
    """What ends the check before its accounts can be closed."""


class Client:
    """One WebSocket in one room on one process."""

    def __init__(self, number: int, room: int, process: int, tally: Tally) -> None:
        self.number = number
        self.process = process
        self.room = room
        self.members: set[str] = set()
        self.pongs: list[float] = []
        self.heard = 0
        self._usage: list[float] = []
        self._tally = tally
        self._news = asyncio.Event()
        self._socket: ClientConnection | None = None
        self._listening: asyncio.Task[None] | None = None

    async def join(self, address: str) -> None:
        """Connects and waits until the server confirms that it is in the room."""
        uri = f"ws://{address}/ws/room/check-{self.room}/?name=client+{self.number}"
        self._socket = await connect(
            uri,
            origin=websockets.Origin(f"http://{address}"),
            compression=None,
            ping_interval=None,
            max_queue=None,
            proxy=None,
        )
        welcome = json.loads(await self._socket.recv())
        if welcome["type"] != "welcome":
            raise Trouble(f"client {self.number} got {welcome!r} for a welcome")
        if welcome["process"] != process_name(self.process):
            raise Trouble(f"{address} is served by process {welcome['process']}")
        self._listening = asyncio.create_task(self._listen())

    async def sees(self, members: int) -> None:
        """Waits until it sees so many members, itself among them, in the room."""
        while len(self.members) < members:
            await self._changed()

    async def talk(self) -> None:
        """Says all it has to say, each when it saw the one before."""
        speaker = self._tally.speakers[self.number]
        while len(speaker.said_at) < speaker.quota:
            if speaker.may_say():
                await self._send("say", text=f"{self.number}:{speaker.say()}")
            elif not await self._progress(speaker):
                speaker.give_up()
        while speaker.missing and await self._progress(speaker):
            pass

    async def ping(self, times: int) -> None:
        """Times so many round trips through the layer, one after the other."""
        for number in range(times):
            await self._send("ping", number=number)
            while len(self.pongs) <= number:
                await self._changed()

    async def cpu(self) -> float:
        """Asks its process how much CPU (seconds) that took so far."""
        self._usage.clear()
        await self._send("usage")
        while not self._usage:
            await self._changed()
        return self._usage[0]

    async def leave(self) -> None:
        """Closes the WebSocket."""
        if self._listening is not None:
            self._listening.cancel()
        if self._socket is not None:
            await self._socket.close()

    @property
    def _connection(self) -> ClientConnection:
        if self._socket is None:
            raise Trouble(f"client {self.number} is not connected")
        return self._socket

    async def _changed(self) -> None:
        self._news.clear()
        await self._news.wait()
        self._still_there()

    async def _progress(self, speaker: Speaker) -> bool:
        speaker.news.clear()
        try:
            await asyncio.wait_for(speaker.news.wait(), PATIENCE)
        except asyncio.TimeoutError:
            return False
        self._still_there()
        return True

    def _still_there(self) -> None:
        if self._listening is not None and self._listening.done():
            self._listening.result()

    async def _send(self, kind: str, **content: object) -> None:
        await self._connection.send(json.dumps({"type": kind, **content}))

    async def _listen(self) -> None:
        try:
            async for frame in self._connection:
                self._take(json.loads(frame))
            raise Trouble(f"client {self.number} was sent away by the server")
        finally:
            self._news.set()
            self._tally.speakers[self.number].news.set()

    def _take(self, message: Json) -> None:
        kind = message["type"]
        if kind == "said":
            self.heard += 1
            self._tally.hear(self.number, message["text"])
            return
        if kind == "here":
            self.members.add(message["id"])
        elif kind == "pong":
            self.pongs.append(message["ms"] / 1000)
        elif kind == "usage":
            self._usage.append(message["cpu"])
        elif kind == "error":
            raise Trouble(f"the server refused: {message['detail']}")
        self._news.set()


def rooms_of(clients: int) -> list[list[int]]:
    """Spreads the clients over rooms of about ROOM_SIZE."""
    count = max(1, round(clients / ROOM_SIZE))
    return [list(range(first, clients, count)) for first in range(count)]


async def run(
    addresses: Sequence[str], clients: int, messages: int, limit: float
) -> bool:
    """Runs the check, prints its accounts and returns whether all is right."""
    rooms = rooms_of(clients)
    tally = Tally(rooms, messages)
    people = [
        Client(number, index, place % len(addresses), tally)
        for index, room in enumerate(rooms)
        for place, number in enumerate(room)
    ]
    print(f"{clients} WebSocket clients, {messages:,} messages", flush=True)
    began = time.perf_counter()
    trouble = ""
    try:
        work = _work(addresses, people, tally)
        await asyncio.wait_for(work, limit)
    except asyncio.TimeoutError:
        trouble = f"not done after {limit:.0f} seconds"
    except (Trouble, OSError, websockets.WebSocketException) as error:
        trouble = f"{type(error).__name__}: {error}"
    finally:
        leaving = (person.leave() for person in people)
        await asyncio.gather(*leaving, return_exceptions=True)
    _print_accounts(tally, messages)
    if trouble:
        seconds = time.perf_counter() - began
        seen = sum(len(person.members) for person in people)
        print(f"\nStopped after {seconds:.1f} s: {trouble}")
        print(f"members seen {seen} of {sum(len(room) ** 2 for room in rooms)}")
    right = tally.right and not trouble
    print("\nEvery message is accounted for." if right else "\nSomething is wrong.")
    return right


async def _work(addresses: Sequence[str], people: list[Client], tally: Tally) -> None:
    began = time.perf_counter()
    rooms = tally.rooms
    # One newcomer per room at a time, so that each is told of all before it.
    for place in range(max(map(len, rooms))):
        numbers = {room[place] for room in rooms if place < len(room)}
        newcomers = [person for person in people if person.number in numbers]
        await _all(person.join(addresses[person.process]) for person in newcomers)
        present = [person for person in people if person.number in numbers]
        await _all(person.sees(place + 1) for person in present)
    await _all(person.sees(len(rooms[person.room])) for person in people)
    spread = ", ".join(
        f"{sum(person.process == index for person in people)} on process "
        f"{process_name(index)}"
        for index in range(len(addresses))
    )
    print(f"{spread}; {len(rooms)} rooms over all processes")
    print(
        f"all joined and see each other ({time.perf_counter() - began:.1f} s)",
        flush=True,
    )
    await people[0].ping(PINGS)
    report = asyncio.create_task(_report(tally))
    asked = [next(p for p in people if p.process == n) for n in range(len(addresses))]
    before = [await person.cpu() for person in asked]
    began = time.perf_counter()
    try:
        await _all(person.talk() for person in people)
    finally:
        report.cancel()
    seconds = tally.last_news - began
    taken = [await p.cpu() - b for p, b in zip(asked, before, strict=True)]
    await asyncio.sleep(QUIET)
    print(
        f"talked for {seconds:.1f} s: {tally.said / seconds:,.0f} messages and "
        f"{tally.deliveries / seconds:,.0f} deliveries per second"
    )
    _print_cpu(people, taken)
    pongs = people[0].pongs
    _print_times("layer round trip, one message at a time", pongs)
    _print_times(f"WebSocket round trip, {len(people)} at once", tally.round_trips)


async def _all(works: Iterable[Awaitable[None]]) -> None:
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _report(tally: Tally) -> None:
    while True:
        await asyncio.sleep(REPORT_EVERY)
        print(f"  {tally.said:,} messages sent, {tally.lost:,} deliveries under way")


def _print_cpu(people: Sequence[Client], taken: Sequence[float]) -> None:
    said = []
    for process, cpu in enumerate(taken):
        heard = sum(person.heard for person in people if person.process == process)
        each = cpu / heard * 1e6 if heard else float("nan")
        said.append(f"{each:,.0f} µs on process {process_name(process)}")
    print(f"CPU of the server for each delivery: {', '.join(said)}")


def _print_times(what: str, seconds: Sequence[float]) -> None:
    middle, tail = (quantile(seconds, part) * 1000 for part in (0.5, 0.99))
    print(f"{what}: p50 {middle:.2f} ms, p99 {tail:.2f} ms")


def _print_accounts(tally: Tally, messages: int) -> None:
    expected = tally.deliveries + tally.lost
    rows = [
        ("messages sent", f"{tally.said:,} of {messages:,}"),
        ("messages complete", f"{tally.said - tally.incomplete:,} of {tally.said:,}"),
        ("deliveries", f"{tally.deliveries:,} of {expected:,}"),
        ("lost deliveries", f"{tally.lost:,}"),
        ("doubled", f"{tally.doubled:,}"),
        ("out of order", f"{tally.reordered:,}"),
        ("from elsewhere", f"{tally.strays:,}"),
    ]
    print()
    for name, value in rows:
        print(f"  {name:<20}{value:>20}")
