"""One pop from a key: its commands' replies, taken as they come."""

from __future__ import annotations

import asyncio
import reprlib
from collections.abc import Callable
from typing import Any

from redis import exceptions as errors

# A popped message: the member of the key and its score, as Redis writes it.
Entry = tuple[bytes, bytes]


def popped(reply: Any) -> list[Entry]:
    """What BZPOPMIN or ZPOPMIN gave; raises `InvalidResponse` for another shape."""
    if isinstance(reply, list):
        # BZPOPMIN names the key first.
        if len(reply) == 3 and isinstance(reply[1], bytes):
            return [(reply[1], reply[2])]
        if len(reply) % 2 == 0 and isinstance(reply[0], bytes):
            return list(zip(reply[::2], reply[1::2], strict=True))
    raise errors.InvalidResponse(f"no reply to a pop: {reprlib.repr(reply)}")


class Pop:
    """Takes the replies of one pop as they come, in the place of a caller's future.

    A future would take one more step of the event loop, which is time that every
    message would spend.
    """

    __slots__ = ("_done", "_entries", "_error", "_loop", "_to_come")

    def __init__(
        self,
        replies: int,
        done: Callable[[list[Entry], Exception | None], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._to_come = replies
        self._done = done
        self._loop = loop
        self._entries: list[Entry] = []
        self._error: Exception | None = None

    def done(self) -> bool:
        """Never: nobody cancels it."""
        return False

    def set_result(self, reply: list[bytes] | None) -> None:
        """Takes a reply; after the last one all is delivered, before this returns."""
        if reply:
            try:
                self._entries += popped(reply)
            except errors.InvalidResponse as error:
                self._error = error
        self._to_come -= 1
        if not self._to_come:
            try:
                self._done(self._entries, self._error)
            except Exception as error:  # not the connection's fault, which calls this
                about = {"message": "while delivering messages", "exception": error}
                self._loop.call_exception_handler(about)

    def set_exception(self, error: Exception) -> None:
        """Takes an error; what follows from it waits until the connection is done."""
        self._error = self._error or error
        self._loop.call_soon(self.set_result, None)
