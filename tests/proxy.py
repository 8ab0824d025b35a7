"""A TCP proxy that breaks connections in the ways that networks do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from polling import until
from servers import HOST, free_port

T = TypeVar("T")


class Target(Protocol):
    """Where to connect to: a server, or another proxy."""

    host: str
    port: int


class Flow:
    """What happens to the bytes of one direction, on all connections.

    Everything may be set at any time, also while bytes are on their way.
    """

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._open: asyncio.Event
        self._cut_at: int | None = None
        self._corrupt_at: int | None = None
        # Seconds that each piece is held up.
        self.delay = 0.0
        # The size of the pieces that bytes are passed on in.
        self.split: int | None = None
        # Bytes passed on so far.
        self.passed = 0

    def hold(self) -> None:
        """Pass nothing on until `release`: no answer, and no error."""
        self._proxy._call(lambda: self._open.clear())

    def release(self) -> None:
        """Pass on what was held, and what comes."""
        self._proxy._call(lambda: self._open.set())

    def cut_after(self, count: int) -> None:
        """Pass `count` more bytes on, then cut the connection they are on."""
        self._cut_at = self.passed + count

    def corrupt_after(self, count: int) -> None:
        """Pass `count` more bytes on as they are, and invert the one that follows."""
        self._corrupt_at = self.passed + count

    async def pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> bool:
        """Write the bytes in the way that is asked for; whether to go on."""
        while data:
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._open.wait()
            piece = data[: self.split]
            data = data[len(piece) :]
            start, end = self.passed, self.passed + len(piece)
            if self._corrupt_at is not None and start <= self._corrupt_at < end:
                at = self._corrupt_at - start
                piece = piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]
                self._corrupt_at = None
            if cut := self._cut_at is not None and self._cut_at <= end:
                piece = piece[: self._cut_at - start]
                self._cut_at = None
            writer.write(piece)
            self.passed += len(piece)
            await writer.drain()
            if cut:
                # What was written is sent before the end.
                writer.write_eof() if writer.can_write_eof() else None
                return False
        return True


class Connection:
    """A client's connection and the one that was opened for it."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.writers = writers

    def cut(self, *, reset: bool) -> None:
        """Close both sides at once."""
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            if reset and sock is not None:
                linger = struct.pack("ii", 1, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()


class Proxy:
    """Listens on a port of its own and passes on to a server; runs in a thread.

    With `tls`, it speaks TLS to its clients and plain TCP to the server.
    """

    host = HOST

    def __init__(self, target: Target, *, tls: ssl.SSLContext | None = None) -> None:
        # A new target is for new connections.
        self.target = target
        self.requests = Flow(self)
        self.replies = Flow(self)
        # How many connections were accepted so far.
        self.accepted = 0
        self.port = free_port()
        self._tls = tls
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port

    @property
    def url(self) -> str:
        """The URI, without a password."""
        return f"{'rediss' if self._tls else 'redis'}://{self.host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._connections)

    def start(self) -> Proxy:
        """Begin to listen."""
        self._thread.start()
        self.accept()
        return self

    def stop(self) -> None:
        """Close everything, and end the thread."""
        self._wait(self._close())
        self._call(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def accept(self) -> None:
        """Take new connections, as at the start."""
        self._wait(self._listen())

    def refuse(self) -> None:
        """Refuse new connections; those that there are stay."""
        self._wait(self._unlisten())

    def cut(self, *, reset: bool = False) -> int:
        """Close all connections now, by RST if asked to; how many there were."""

        async def cut() -> int:
            connections = list(self._connections)
            for connection in connections:
                connection.cut(reset=reset)
            return len(connections)

        count = self._wait(cut())
        until(lambda: not self._connections or self.accepted > count, "the cut")
        return count

    def half_close(self, side: str = "client") -> None:
        """Tell the clients (or the "server") that no more will come, and go on."""
        index = ("client", "server").index(side)

        async def close() -> None:
            for connection in self._connections:
                connection.writers[index].write_eof()

        self._wait(close())
