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
from ..commands.publishing import CLASSIC

# How many names are subscribed again before their confirmation is awaited: a server
# drops a subscriber that lets too much pile up.
_BATCH = 512
_PAUSE = 0.05  # seconds until a name is tried again that a server refuses for now

Confirmation = asyncio.Future[Any]


def is_of_the_name(error: BaseException) -> bool:
    """Whether an error says something of a name alone: not here, or not allowed."""
    if isinstance(error, errors.ClusterDownError):
        return "not served" in str(error)  # else it is of all names
    return isinstance(error, (errors.AskError, errors.NoPermissionError))


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
        self.idle_since = asyncio.get_running_loop().time()
        self.loop = self._loop = asyncio.get_running_loop()
        self._host = host
        self._deliver = deliver
        self._stray = stray
        self._down = down
        self._up = up
        # The connection in use or being greeted, and what each name waits for on it.
        self._pipe: PipelinedConnection | None = None
        self._confirmations: dict[bytes, Confirmation] = {}
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
        pipe = self._link.connection
        if pipe is None:
            self._link.begin()  # whose greeting subscribes to it
        elif name not in self._confirmations and self._filling is None:
            filling = self.shard.spawn(self._fill(pipe))
            # An eager task factory may have ended it already.
            self._filling = None if filling.done() else filling

    async def settled(self) -> None:
        """Returns when all names have an answer, or the connection broke."""
        if self._filling is not None:
            await asyncio.wait([self._filling])

    def unsubscribe(self, name: bytes) -> None:
        """Gives a name up; nobody waits for the answer."""
        confirmation = self._drop(name)
        if confirmation is None or self._pipe is None:
            return
        if not confirmation.done() or confirmation.exception() is None:
            self._say_farewell(self._pipe, name)

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
            if not is_connection_loss(error):
                self.unsubscribe(name)
            raise

    def _request(self, pipe: PipelinedConnection, name: bytes) -> Confirmation:
        confirmation = pipe.call((self._host.verbs.subscribe, name))
        confirmation.add_done_callback(_consume)
        self._confirmations[name] = confirmation
        return confirmation

    def _say_farewell(self, pipe: PipelinedConnection, name: bytes) -> None:
        unsubscribe = self._host.verbs.unsubscribe
        if self._host.verbs is CLASSIC:
            pipe.call((unsubscribe, name)).add_done_callback(_consume)
        elif pipe.error is None:
            pipe.write((unsubscribe, name))
            pipe.post(_Farewell(pipe), (b"PING",))

    async def _greet(self, pipe: PipelinedConnection) -> None:
        """Subscribes to all names anew before anybody uses the connection."""
        self._forget()
        if not self._host.is_known:
            await self._host.ask(self, b"", pipe.call)
        self._pipe = pipe
        await self._subscribe_all(pipe)

    async def _fill(self, pipe: PipelinedConnection) -> None:
        """Subscribes to names that came since the connection was greeted."""
        try:
            while not await self._is_filled(pipe):
                pass
        except errors.RedisError as error:
            pipe.abort(error)  # the next one is greeted, again and again
        finally:
            self._filling = None

    async def _is_filled(self, pipe: PipelinedConnection) -> bool:
        """Whether all names have an answer, none of which will be another one soon."""
        try:
            await self._subscribe_all(pipe)
        except errors.RedisError as error:
            if not may_pass(error):
                raise
            for name, answer in list(self._confirmations.items()):
                if answer.done() and answer.exception() is not None:
                    del self._confirmations[name]
            await asyncio.sleep(_PAUSE)
            return False
        return True

    async def _subscribe_all(self, pipe: PipelinedConnection) -> None:
        """Returns when a connection has its answer for every name."""
        while names := [n for n in self.names if n not in self._confirmations]:
            for start in range(0, len(names), _BATCH):
                await self._subscribe_some(pipe, names[start : start + _BATCH])

    async def _subscribe_some(
        self, pipe: PipelinedConnection, names: list[bytes]
    ) -> None:
        if pipe is not self._pipe:
            raise errors.ConnectionError("the connection was lost")
        names = [n for n in names if n in self.names and n not in self._confirmations]
        answers = [self._request(pipe, name) for name in names]
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
            self._unsubscribed(name)
        elif name in self.names:  # else it may come from its new node, too
            self._deliver(name, push[2])

    def _unsubscribed(self, name: bytes) -> None:
        """The answer to a farewell, or the name's slot left this node."""
        confirmation = self._confirmations.get(name)
        # Subscribed to again since the farewell, a name has an answer to come.
        if confirmation is not None and confirmation.done():
            self._let_stray(name)

    def _let_stray(self, name: bytes) -> None:
        self._drop(name)
        self._stray(self, name)

    def _drop(self, name: bytes) -> Confirmation | None:
        self.names.pop(name, None)
        if not self.names:
            self.idle_since = self._loop.time()
        return self._confirmations.pop(name, None)

    def _lost(self, error: Exception) -> None:
        self._forget()
        self._down(self)

    def _forget(self) -> None:
        self._pipe = None
        self._confirmations.clear()


class _Farewell:
    """Takes the answer to SUNSUBSCRIBE, which has none of its own.

    It is answered by a push, which may also come by itself when the slot leaves the
    node, or by an error. So PING follows, and what comes before its answer is a push
    or the error.
    """

    __slots__ = ("_pipe",)

    def __init__(self, pipe: PipelinedConnection) -> None:
        self._pipe = pipe

    def done(self) -> bool:
        """Never: nobody cancels it."""
        return False

    def set_result(self, reply: Any) -> None:
        """Takes the answer to PING."""

    def set_exception(self, error: Exception) -> None:
        """Takes the error of either; what is of neither's own ends the connection."""
        if self._pipe.error is not None or "'ping'" in str(error):
            return  # it is gone, or PING is not allowed
        if is_of_the_name(error) or isinstance(error, errors.ClusterDownError):
            self._pipe.expect(self)
        else:
            self._pipe.abort(error)


def _consume(answer: Confirmation) -> None:
    """Marks the outcome of an answer that nobody awaits as seen."""
    if not answer.cancelled():
        answer.exception()
