"""A process of raw WebSocket clients that account for every frame.

    clients.py DESCRIPTOR DONE

DESCRIPTOR is the pipe over which it is told what to do (see worker.py). To DONE it
writes a byte for each message that all members of its group have: the sender reads it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).parents[1]))
sys.path.insert(2, str(Path(__file__).parents[2] / "tests"))

from worker import serve

AT_ONCE = 50  # that connect
IDLE = 5.0  # seconds without a frame, after which the rest is lost
QUIET = 0.1  # seconds to see whether something comes twice
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
BEGINS = len('{"n": ')


class Socket(asyncio.Protocol):
    """One client; the frames of its room have the numbers `next`, `next + step`, ..."""

    def __init__(self, crowd: Crowd, path: str, number: int) -> None:
        self.opened = asyncio.get_running_loop().create_future()
        self.number = number
        self.next = 0
        self._crowd = crowd
        self._path = path
        self._rest = b""
        self._is_open = False

    def connection_made(self, transport: Any) -> None:
        """Asks for a WebSocket."""
        self.transport = transport
        host, port = transport.get_extra_info("peername")[:2]
        head = (
            f"GET {self._path} HTTP/1.1\r\nHost: {host}:{port}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        transport.write(head.encode())

    def data_received(self, data: bytes) -> None:
        """Takes what came apart into frames."""
        if self._rest:
            data = self._rest + data
        if not self._is_open:
            head, ends, data = data.partition(b"\r\n\r\n")
            if not ends:
                self._rest = head
                return
            self._open(head)
        at, size = 0, len(data)
        while size - at >= 2:
            length, begin = data[at + 1], at + 2
            if length == 126:
                length, begin = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, begin = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            end = begin + length
            if begin > size or end > size:
                break
            self._take(data[at] & 15, data, begin, end)
            at = end
        self._rest = data[at:]

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody else may close it."""
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("closed while it was opened"))
        self._crowd.closed += 1

    def say(self, payload: bytes) -> None:
        """Sends a short text."""
        self._write(0x80 | TEXT, payload)

    def _open(self, head: bytes) -> None:
        self._is_open = True
        if b" 101 " in head.partition(b"\r\n")[0]:
            self.opened.set_result(None)
        else:
            self.opened.set_exception(ConnectionError(head[:200].decode("latin-1")))

    def _take(self, opcode: int, data: bytes, begin: int, end: int) -> None:
        if opcode in (TEXT, BINARY):
            stop = data.index(b",", begin, end)
            self._crowd.take(self, int(data[begin + BEGINS : stop]))
        elif opcode == PING:
            self._write(0x8A, data[begin:end])

    def _write(self, first: int, payload: bytes) -> None:
        # A mask of zeros changes nothing, and the server has to apply it all the same.
        head = bytes((first, 0x80 | len(payload), 0, 0, 0, 0))
        self.transport.write(head + payload)


class Crowd:
    """All clients; its methods are called over the pipe."""

    def __init__(self, done: int) -> None:
        self._done = done
        self._sockets: list[Socket] = []
        self._groups = 1
        self.closed = 0
        self._talking = False
        self._reset(0)

    def _reset(self, first: int) -> None:
        self._first = first
        self._received = self._wrong = 0
        self._missing: list[int] = []  # by message: clients that don't have it yet
        self._times: list[float] = []  # when the last one got it
        self._last = time.monotonic()

    async def connect(
        self, host: str, port: int, consumer: str, count: int, groups: int
    ) -> None:
        """Opens so many, shared out among so many groups, and waits until all are."""
        loop = asyncio.get_running_loop()
        self._groups, self.closed = groups, 0

        async def join(number: int) -> Socket:
            path = f"/{consumer}/room-{number % groups}/"
            _, socket = await loop.create_connection(
                lambda: Socket(self, path, number), host, port
            )
            await asyncio.wait_for(socket.opened, 30)
            return socket

        for begin in range(0, count, AT_ONCE):
            numbers = range(begin, min(begin + AT_ONCE, count))
            self._sockets += await asyncio.gather(*map(join, numbers))

    async def leave(self) -> None:
        """Closes all."""
        for socket in self._sockets:
            socket.transport.abort()
        self._sockets.clear()
        await asyncio.sleep(0)

    async def expect(self, first: int) -> None:
        """Forgets what came; the next message has this number."""
        self._reset(first)
        for socket in self._sockets:
            group = socket.number % self._groups
            socket.next = first + (group - first) % self._groups

    def take(self, socket: Socket, number: int) -> None:
        """Accounts for one frame of a socket."""
        if self._talking:
            self._received += 1
            socket.say(b'{"n": %d, "text": ""}' % (number + 1))
            return
        if number != socket.next:
            self._wrong += 1
            if number < socket.next:  # again, or overtaken
                return
        socket.next = number + self._groups
        self._received += 1
        index = number - self._first
        while len(self._missing) <= index:
            each, more = divmod(len(self._sockets), self._groups)
            group = (self._first + len(self._missing)) % self._groups
            self._missing.append(each + (group < more))
            self._times.append(0.0)
        self._missing[index] -= 1
        self._last = time.monotonic()
        if not self._missing[index]:
            self._times[index] = self._last
            os.write(self._done, b".")

    async def collect(self, count: int) -> dict[str, Any]:
        """What became of so many messages, once all came or nothing does any more."""
        each = len(self._sockets) / self._groups
        total = round(count * each)
        # Nobody tells when nothing more comes.
        while self._received < total and time.monotonic() - self._last < IDLE:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await asyncio.sleep(QUIET)
        return {
            "received": self._received,
            "lost": max(0, total - self._received),
            "wrong": self._wrong,
            "closed": self.closed,
            "last": self._last,
            "times": self._times,
        }

    async def talk(self, seconds: float) -> float:
        """Lets all clients say something again and again; answers per second."""
        self._reset(0)
        self._talking = True
        for socket in self._sockets:
            socket.say(b'{"n": 0, "text": ""}')
        began = time.monotonic()
        await asyncio.sleep(seconds)
        found = self._received / (time.monotonic() - began)
        self._talking = False
        await asyncio.sleep(QUIET)
        return found


def main(pipe: str, done: str) -> None:
    """Does what it is told until the pipe is closed."""

    async def work() -> None:
        await serve(Connection(int(pipe)), Crowd(int(done)))

    asyncio.run(work())


if __name__ == "__main__":
    main(*sys.argv[1:])
