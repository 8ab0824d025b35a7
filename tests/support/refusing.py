"""A proxy that has a server answer commands with an error."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import hiredis

from support.proxy import Flow, Proxy, Target

# What a layer does with its data. Servers take the others in (almost) any state.
POPS = frozenset((b"BZPOPMIN", b"ZPOPMIN"))
_SCRIPTS = frozenset((b"EVALSHA", b"EVAL"))
_OTHERS = frozenset((b"ZREM", b"ZSCORE", b"PUBLISH", b"SPUBLISH", b"SCAN", b"UNLINK"))
DATA = POPS | _SCRIPTS | _OTHERS
_ERROR = (b"EVAL", b"return redis.error_reply(ARGV[1])", 0)


class RefusingFlow(Flow):
    """Requests, of which some are turned into one for an error: answers stay in order.

    `error` is its text, `verbs` are what is turned into it.
    """

    error = ""
    verbs = DATA
    refused = 0

    async def pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass on what comes until its end."""
        parser = hiredis.Reader()
        while data := await reader.read(1 << 16):
            parser.feed(data)
            commands = iter(parser.gets, False)
            await self._write(b"".join(map(self._turned, commands)), writer)
        self.end(writer)

    def _turned(self, command: list[bytes]) -> bytes:
        if self.error and command[0].upper() in self.verbs:
            self.refused += 1
            return hiredis.pack_command((*_ERROR, self.error))
        return hiredis.pack_command(tuple(command))


class RefusingProxy(Proxy):
    """Lets a server refuse what it would take."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.requests: RefusingFlow = RefusingFlow(self)

    @contextmanager
    def refusing(self, error: str, verbs: frozenset[bytes] = DATA) -> Iterator[None]:
        """Meanwhile these verbs get an error."""
        self.requests.verbs = verbs
        self.requests.error = error
        try:
            yield
        finally:
            self.requests.error = ""
