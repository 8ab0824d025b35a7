"""The subscriptions of one event loop at one server, on a connection of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis import exceptions as errors

from .._logs import warn
from ..client.connection import PipelinedConnection
from ..client.host_verbs import HostVerbs
from ..client.shard import Shard
from ..commands.errors import is_connection_loss, may_pass
from .confirmations import Confirmation, Confirmations, is_of_the_name

# How many names are subscribed again before their confirmation is awaited: a server
# drops a subscriber that lets too much pile up.
_BATCH = 512
_PAUSE = 0.05  # seconds until a name is tried again that a server refuses for now


class Subscriber:
    """Keeps names subscribed at one node of a shard; callbacks, not a task.

    `deliver` takes each message, by name and payload. `stray` is told a name that was
    given up, because this node won't have it (any more), `down` the loss of the
    connection and every failed attempt, `up` that there is one on which all names are
    confirmed.
    """

    def __init__(
        self,
        shard: Shard,
        node: Any,
        host: HostVerbs,
        *,
        deliver: Callable[[bytes, bytes], None],
        stray: Callable[[Subscriber, bytes], None],
        down: Callable[[Subscriber], None],
        up: Callable[[Subscriber], None],
    ) -> None:
        self.shard = shard
        self.node = node
        self.names: dict[bytes, None] = {}
        self.loop = asyncio.get_running_loop()
        self.idle_since = self.loop.time()
        self._host = host
        self._deliver = deliver
        self._stray = stray
        self._down = down
        self._up = up
        # On the connection in use or being greeted.
        self._confirmations: Confirmations | None = None
        self._filling: asyncio.Task[None] | None = None
        self._refused: set[bytes] = set()  # names of which that was logged
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

    def want(self, name: bytes) -> None:
        """Has a name subscribed as soon as may be, however often that fails."""
        self.names[name] = None
        connection, confirmations = self._link.connection, self._confirmations
        if connection is None or confirmations is None:
            self._link.begin()  # whose greeting subscribes to it
        elif confirmations.get(name) is None and self._filling is None:
            filling = self.shard.spawn(self._fill(connection, confirmations))
            # An eager task factory may have ended it already.
            self._filling = None if filling.done() else filling

    async def settled(self) -> None:
        """Returns when all names have an answer, or the connection broke."""
        if self._filling is not None:
            await asyncio.wait([self._filling])

    def unsubscribe(self, name: bytes) -> None:
        """Gives a name up; nobody waits for the answer."""
        self._forget(name)
        if self._confirmations is not None:
            self._confirmations.withdraw(name)

    async def aclose(self) -> None:
        """Ends the connection."""
        await self.shard.close_link(self._link)

    # Steps

    async def _confirmed(self, name: bytes) -> None:
        if self._confirmations is None:
            await self._link.get()  # on which the name was asked for already
        if name not in self.names:
            raise errors.ConnectionError(f"{name!r} was given up")
        if self._confirmations is None:
            raise errors.ConnectionError("the connection was lost")
        try:
            await asyncio.shield(self._confirmations.request(name))
        except errors.RedisError as error:
            if not is_connection_loss(error):
                self.unsubscribe(name)
            raise

    async def _greet(self, connection: PipelinedConnection) -> None:
        """Subscribes to all names anew before anybody uses the connection."""
        self._confirmations = None
        if not self._host.is_known:
            await self._host.ask(self, b"", connection.call)
        self._confirmations = Confirmations(connection, self._host.verbs)
        await self._subscribe_all(self._confirmations)

    async def _fill(
        self, connection: PipelinedConnection, confirmations: Confirmations
    ) -> None:
        """Subscribes to names that came since the connection was greeted."""
        try:
            while not await self._is_filled(confirmations):
                pass
        except errors.RedisError as error:
            connection.abort(error)  # the next one is greeted, again and again
        finally:
            self._filling = None

    async def _is_filled(self, confirmations: Confirmations) -> bool:
        """Whether all names have an answer, none of which will be another one soon."""
        try:
            await self._subscribe_all(confirmations)
        except errors.RedisError as error:
            if not may_pass(error):
                raise
            confirmations.forget_refused()
            await asyncio.sleep(_PAUSE)
            return False
        return True

    async def _subscribe_all(self, confirmations: Confirmations) -> None:
        """Returns when a connection has its answer for every name."""
        while names := confirmations.missing(self.names):
            for start in range(0, len(names), _BATCH):
                batch = names[start : start + _BATCH]
                await self._subscribe_some(confirmations, batch)

    async def _subscribe_some(
        self, confirmations: Confirmations, names: list[bytes]
    ) -> None:
        if confirmations is not self._confirmations:
            raise errors.ConnectionError("the connection was lost")
        names = confirmations.missing(filter(self.names.__contains__, names))
        answers = [confirmations.request(name) for name in names]
        for name, answer in zip(names, answers, strict=True):
            await self._answered(name, answer)

    async def _answered(self, name: bytes, answer: Confirmation) -> None:
        try:
            # Others wait for it, too: who is cancelled here must not cancel them.
            await asyncio.shield(answer)
            self._refused.discard(name)
        except errors.ResponseError as error:
            if not is_of_the_name(error):
                raise
            # Who waits for it is told. It is tried again by itself, until a node has
            # it and the server's rules allow it.
            self._let_stray(name)
            self._log_refusal(name, error)

    def _log_refusal(self, name: bytes, error: errors.ResponseError) -> None:
        if isinstance(error, errors.NoPermissionError) and name not in self._refused:
            self._refused.add(name)
            warn("Redis at %s: %s", self.shard.host, error)

    def _pushed(self, push: list[Any]) -> None:
        kind, name = push[0], push[1]
        if kind == b"sunsubscribe":
            known = self._confirmations
            answer = known.get(name) if known else None
            # The name's slot left this node; or it is the answer to a farewell: by now
            # the name is forgotten, or subscribed to again, with an answer to come.
            if answer is not None and answer.done():
                self._let_stray(name)
        elif name in self.names:  # else it may come from its new node, too
            self._deliver(name, push[2])

    def _let_stray(self, name: bytes) -> None:
        self._forget(name)
        if self._confirmations is not None:
            self._confirmations.forget(name)
        self._stray(self, name)

    def _forget(self, name: bytes) -> None:
        self.names.pop(name, None)
        if not self.names:
            self.idle_since = self.loop.time()

    def _lost(self, error: Exception) -> None:
        self._confirmations = None
        self._down(self)
