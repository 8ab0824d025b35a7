"""What to come near to in synchronous code: the same commands on a blocking socket."""

from __future__ import annotations

import socket
from collections.abc import Generator
from typing import Any

import hiredis

from limits import Limit, LimitCore, LimitPubSub

CHUNK = 1 << 16  # bytes


class Reply:
    """A reply that is there; to be awaited, in whatever event loop."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[None, None, Any]:
        return self._value
        yield


class BlockingWire:
    """A socket to Redis: a round trip for each command, of which nothing else knows."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def call(self, *command: Any) -> Reply:
        """The reply."""
        self._socket.sendall(hiredis.pack_command(command))
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(CHUNK))
        if isinstance(reply, Exception):
            raise reply
        return Reply(reply)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


class Blocking(Limit):
    """Sends block, as who is alone in an event loop may; receivers are as they were."""

    async def _sending(self) -> Any:
        if self._wire is None:
            self._wire: Any = BlockingWire(*self._address)
            self._wires.append(self._wire)
            for script in self.scripts:
                self._wire.call(b"SCRIPT", b"LOAD", script.text)
        return self._wire


class BlockingCore(Blocking, LimitCore):
    """As the core layer sends."""


class BlockingPubSub(Blocking, LimitPubSub):
    """As the Pub/Sub layer does."""
