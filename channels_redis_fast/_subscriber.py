"""The subscriptions of one event loop at one server, on a connection of their own."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from redis import exceptions as errors

from ._connection import PipelinedConnection
from ._logs import warn
from ._shard import Shard
from .commands.errors import is_connection_loss

# How many names are subscribed again before their confirmation is awaited: a server
# drops a subscriber that lets too much pile up.
_BATCH = 512

Confirmation = asyncio.Future[Any]


class Verbs(NamedTuple):
    """The commands of one kind of Pub/Sub."""

    subscribe: bytes
    unsubscribe: bytes
    publish: bytes


CLASSIC = Verbs(b"SUBSCRIBE", b"UNSUBSCRIBE", b"PUBLISH")
SHARDED = Verbs(b"SSUBSCRIBE", b"SUNSUBSCRIBE", b"SPUBLISH")


_TOO_OLD = re.compile("unknown command .s(subscribe|publish)", re.IGNORECASE)


def is_too_old(error: BaseException) -> bool:
    """Whether the server doesn't know sharded Pub/Sub."""
    return isinstance(error, errors.ResponseError) and bool(_TOO_OLD.search(str(error)))


class Subscriber:
    """Keeps names subscribed at one node of a shard; callbacks, not a task.

    `deliver` takes each message, by name and payload. `stray` is told a name that
    belongs to another node now, `down` the loss of the connection and every failed
    attempt, `up` that there is one on which all names are confirmed.
    """

    def __init__(
        self,
        shard: Shard,
        node: Any,
        verbs: Verbs,
        *,
        deliver: Callable[[bytes, bytes], None],
        stray: Callable[[Subscriber, bytes], None],
        down: Callable[[Subscriber], None],
        up: Callable[[Subscriber], None],
    ) -> None:
        self.shard = shard
        self.node = node
        self.names: dict[bytes, None] = {}
        self.idle_since = asyncio.get_running_loop().time()
        self._loop = asyncio.get_running_loop()
        self._verbs = verbs
        self._deliver = deliver
        self._stray = stray
        self._down = down
        self._up = up
        # The connection in use or being greeted, what each name waits for on it, and
        # the commands on it whose answer is a push, oldest first.
        self._pipe: PipelinedConnection | None = None
        self._confirmations: dict[bytes, Confirmation] = {}
        self._asked: deque[tuple[bytes, bytes, Confirmation]] = deque()
        self._link = shard.push_link(
            node, self._pushed, self._greet, lambda: self._up(self), self._lost
        )

    @property
    def was_up(self) -> bool:
        """Whether there was a connection before."""
        return self._link.was_up

    @property
    def is_up(self) -> bool:
        """Whether there is a connection, on which all names are confirmed."""
        return self._link.connection is not None

    async def subscribe(self, name: bytes) -> None:
        """Returns when the server has confirmed a name; lost connections are renewed.

        Raises what keeps it from connecting; the name stays wanted then. Raises what
        the server answers to the name; it doesn't stay then. Raises `ConnectionError`
        when the name was given up meanwhile.
        """
        self.names[name] = None
        try:
            await self._confirmed(name)
        except errors.ConnectionError:
            await self._confirmed(name)

    def unsubscribe(self, name: bytes) -> None:
        """Gives a name up; nobody waits for the answer."""
        self.names.pop(name, None)
        if self._confirmations.pop(name, None) is not None and self._pipe is not None:
            self._ask(self._pipe, self._verbs.unsubscribe, name)
        if not self.names:
            self.idle_since = self._loop.time()

    async def aclose(self) -> None:
        """Ends the connection."""
        await self.shard.close_link(self._link)

    # Steps

    async def _confirmed(self, name: bytes) -> None:
        pipe = self._pipe
        if pipe is None:
            pipe = await self._link.get()  # on which the name was asked for already
        if name not in self.names:
            raise errors.ConnectionError(f"{name!r} was given up")
        confirmation = self._confirmations.get(name)
        if confirmation is None:
            confirmation = self._request(pipe, name)
        try:
            await asyncio.shield(confirmation)
        except errors.RedisError as error:
            if is_too_old(error):
                self._verbs = CLASSIC
                if self._confirmations.get(name) is confirmation:
                    del self._confirmations[name]
                await self._confirmed(name)
                return
            if not is_connection_loss(error):
                self.unsubscribe(name)
            raise

    def _request(self, pipe: PipelinedConnection, name: bytes) -> Confirmation:
        confirmation = self._ask(pipe, self._verbs.subscribe, name)
        self._confirmations[name] = confirmation
        return confirmation

    def _ask(self, pipe: PipelinedConnection, verb: bytes, name: bytes) -> Confirmation:
        answer = pipe.call((verb, name))
        answer.add_done_callback(_consume)
        self._asked.append((verb.lower(), name, answer))
        return answer

    async def _greet(self, pipe: PipelinedConnection) -> None:
        """Subscribes to all names anew before anybody uses the connection."""
        self._forget()
        self._pipe = pipe
        while names := [n for n in self.names if n not in self._confirmations]:
            for start in range(0, len(names), _BATCH):
                batch = [n for n in names[start : start + _BATCH] if n in self.names]
                answers = [self._request(pipe, name) for name in batch]
                for name, answer in zip(batch, answers, strict=True):
                    await self._greeted(name, answer)

    async def _greeted(self, name: bytes, answer: Confirmation) -> None:
        try:
            await answer
        except errors.ResponseError as error:
            if isinstance(error, (errors.MovedError, errors.AskError)):
                self._let_stray(name)
            elif is_too_old(error):
                self._verbs = CLASSIC
                self._confirmations.pop(name, None)
            elif isinstance(error, errors.NoPermissionError):
                # Only this name is refused: who waits for it is told. It is tried
                # again by itself, until the server's rules allow it.
                self._let_stray(name)
                warn("Redis at %s: %s", self.shard.host, error)
            else:
                raise

    def _pushed(self, push: list[Any]) -> None:
        kind, name = push[0], push[1]
        if kind == b"message" or kind == b"smessage":
            if name in self.names:  # else it may come from its new node, too
                self._deliver(name, push[2])
            return
        asked = self._asked
        while asked and asked[0][2].done():
            asked.popleft()  # answered by an error
        if (
            asked
            and asked[0][:2] == (kind, name)
            and self._pipe is not None
            and self._pipe.answer(asked[0][2], push)
        ):
            asked.popleft()
        elif kind == b"sunsubscribe" and name in self.names:
            self._let_stray(name)  # the name's slot left this node

    def _let_stray(self, name: bytes) -> None:
        self._confirmations.pop(name, None)
        self.names.pop(name, None)
        self._stray(self, name)

    def _lost(self, error: Exception) -> None:
        self._forget()
        self._down(self)

    def _forget(self) -> None:
        self._pipe = None
        self._confirmations.clear()
        self._asked.clear()


def _consume(answer: Confirmation) -> None:
    """Marks the outcome of an answer that nobody awaits as seen."""
    if not answer.cancelled():
        answer.exception()
