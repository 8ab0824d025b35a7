"""A TCP proxy that breaks connections in the ways that networks do."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, Literal, Protocol, TypeVar

from support.servers import HOST, free_port

T = TypeVar("T")


class Target(Protocol):
    """Where to connect to: a server, or another proxy."""

    host: str
    port: int


class Flow:
    """What happens to the bytes of one direction, on all connections together.

    Everything may be set at any time, also while bytes are on their way.
    """

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._open = asyncio.Event()
        self._open.set()
        self._cut_at: int | None = None
        self._corrupt_at: int | None = None
        # Seconds that each piece is held up.
        self.delay = 0.0
        # The most bytes that are written at once.
        self.split: int | None = None
        # Bytes passed on so far.
        self.passed = 0
        # Where the end was told already: what still comes is dropped.
        self.ended: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()

    def hold(self) -> None:
        """Pass nothing on until `release`: no answer, and no error."""
        self._proxy.call(self._hold())

    def release(self) -> None:
        """Pass on what was held, and what comes."""
        self._proxy.call(self._release())

    def cut_after(self, count: int) -> None:
        """Pass `count` more bytes on, then close the connection that they are on."""
        self._proxy.call(self._set(_cut_at=count))

    def corrupt_after(self, count: int) -> None:
        """Pass `count` more bytes on as they are, and invert the one that follows."""
        self._proxy.call(self._set(_corrupt_at=count))

    async def _hold(self) -> None:
        self._open.clear()

    async def _release(self) -> None:
        self._open.set()

    async def _set(self, **places: int) -> None:
        for name, count in places.items():
            setattr(self, name, self.passed + count)

    async def pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass on what comes until its end."""
        while data := await reader.read(1 << 16):
            while data:
                piece, data = data[: self.split], data[self.split or len(data) :]
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._open.wait()
                await self._write(piece, writer)
        self.end(writer)

    def end(self, writer: asyncio.StreamWriter) -> None:
        """Tell that no more will come, as far as the connection can tell it."""
        if not writer.can_write_eof():
            raise ConnectionAbortedError("TLS ends both directions at once")
        if writer not in self.ended:
            self.ended.add(writer)
            writer.write_eof()

    async def _write(self, piece: bytes, writer: asyncio.StreamWriter) -> None:
        start, end = self.passed, self.passed + len(piece)
        if self._corrupt_at is not None and start <= self._corrupt_at < end:
            at = self._corrupt_at - start
            piece = piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]
            self._corrupt_at = None
        cut = self._cut_at is not None and self._cut_at <= end
        if cut:
            piece = piece[: self._cut_at - start]  # type: ignore[operator]
            self._cut_at = None
        self.passed += len(piece)
        if writer not in self.ended:
            if writer.is_closing():  # uvloop refuses what asyncio drops
                raise ConnectionResetError
            writer.write(piece)
            await writer.drain()
        if cut:
            raise ConnectionAbortedError("cut after the bytes that were asked for")


class Proxy:
    """Listens on a port of its own and passes on to a server; lives in a thread.

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
        # What should not have happened; raised by `stop`.
        self.errors: list[BaseException] = []
        self._tls = tls
        # The tasks of the connections, with the client's and the server's side.
        self._pairs: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._note)
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")

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
        return len(self._pairs)

    def start(self) -> Proxy:
        """Begin to listen."""
        self._thread.start()
        try:
            self.accept()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Close everything, and end the thread."""
        self.refuse()
        self.cut()
        self.call(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self.errors:
            raise self.errors[0]

    def accept(self) -> None:
        """Take new connections, as at the start."""
        self.call(self._listen())

    def refuse(self) -> None:
        """Refuse new connections; those that there are stay."""
        self.call(self._unlisten())

    def cut(self, *, reset: bool = False) -> int:
        """Close all connections now, by RST if asked to; how many there were."""
        return self.call(self._cut(reset))

    def half_close(self, side: Literal["client", "server"] = "client") -> None:
        """Tell one side that no more will come, and still read what it sends."""
        self.call(self._half_close(side))

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the proxy's thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(
                self._accepted, self.host, self.port, ssl=self._tls
            )

    async def _unlisten(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _cut(self, reset: bool) -> int:
        pairs = dict(self._pairs)
        for task, writers in pairs.items():
            for writer in writers:
                if reset and (sock := writer.get_extra_info("socket")):
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            task.cancel()
        if pairs:
            await asyncio.wait(pairs)
        return len(pairs)

    async def _half_close(self, side: str) -> None:
        flow, index = (self.replies, 0) if side == "client" else (self.requests, 1)
        for writers in self._pairs.values():
            flow.end(writers[index])

    def _accepted(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.accepted += 1
        writers = [writer]
        task = self._loop.create_task(self._serve(reader, writers))
        self._pairs[task] = writers
        task.add_done_callback(self._ended)

    async def _serve(
        self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]
    ) -> None:
        pumps: set[asyncio.Task[None]] = set()
        try:
            target = self.target
            back, forth = await asyncio.open_connection(target.host, target.port)
            writers.append(forth)
            pumps = {
                self._loop.create_task(self.requests.pump(reader, forth)),
                self._loop.create_task(self.replies.pump(back, writers[0])),
            }
            await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for pump in pumps:
                pump.cancel()
            for writer in writers:
                # Closed twice, one of TLS can't be cut: Python 3.11.2.
                if not writer.is_closing():
                    writer.close()
            results = await asyncio.gather(
                *pumps,
                *(writer.wait_closed() for writer in writers),
                return_exceptions=True,
            )
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._pairs[task]
        if not task.cancelled() and (error := task.exception()):
            self._note(self._loop, {"exception": error})

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # Clients may be refused by TLS, or go in the middle of its handshake.
        error = context.get("exception") or RuntimeError(context["message"])
        if not isinstance(error, OSError):
            self.errors.append(error)
