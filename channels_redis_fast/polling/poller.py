"""Pops the messages of one key as long as somebody wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis import exceptions as errors

from ..client.connection import PipelinedConnection
from ..client.reconnecting import ReconnectingConnection
from ..client.shard import Shard
from ..commands.command import Command
from ..commands.errors import is_ask, is_connection_loss, is_demotion, may_pass
from ..commands.scripts import number
from .pops import Entry, Pop

_RETRY = 0.05
_RETRY_REFUSED = 0.5
_FIRST_PATIENCE = 0.001
_LONGEST_PATIENCE = 0.25
_MARGIN = 0.5


class KeyPoller:
    """One blocking connection for one key of one shard; callbacks, not a task.

    `demand` says how many messages may come now, `deliver` takes those that came, in
    order, and `refuse` the error when Redis won't have it (wrong password, no
    permission). A lost connection is nobody's error: the reader goes on by itself, and
    says that something may be `lost`.
    """

    def __init__(
        self,
        shard: Shard,
        key: bytes,
        *,
        demand: Callable[[], int],
        deliver: Callable[[KeyPoller, list[Entry]], None],
        refuse: Callable[[Exception], None],
        lost: Callable[[], object] = lambda: None,
    ) -> None:
        self.shard = shard
        self.key = key
        self._demand = demand
        self._deliver = deliver
        self._refuse = refuse
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._link: ReconnectingConnection | None = None
        self._client_id: int | None = None
        self._popping = False
        # For a slot on its way ASKING goes before each command, on one connection.
        self._asking = False
        self._asks_next = False
        self._is_refused = False  # the last pop, by an error that may pass
        self._demotion: Exception | None = None  # by which a primary is looked for
        self._wait: Command = (b"BZPOPMIN", key, number(int(shard.wait)))
        self._settling = 0
        self._settled: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def is_popping(self) -> bool:
        """Whether messages may be on their way."""
        return self._popping

    @property
    def waiting_client(self) -> int | None:
        """The id of the connection that waits at the server, where it is known."""
        return self._client_id if self._popping else None

    def resume(self) -> None:
        """Pops if there is demand and nothing keeps it from popping."""
        if self._popping or self._settling or self._closed or self._timer is not None:
            return
        wanted = self._demand()
        if wanted <= 0:
            return
        if self._link is None:
            self._link = self.shard.reader_link(
                self.key, self._greet, self._ready, self._down
            )
            self.shard.watch(self.key, self._interrupt)
        if self._link.connection is None:
            self._link.begin()  # which resumes
        else:
            self._pop(self._link.connection, wanted)

    async def stop_polling(self) -> None:
        """Ends the wait; on return all that was popped has been delivered."""
        self._settling += 1
        try:
            await self._end_wait()
        finally:
            self._settling -= 1
        self.resume()

    async def aclose(self) -> None:
        """Ends the wait and the connection; delivers what was on its way."""
        self._closed = True
        self._cancel_timer()
        await self._end_wait()
        self.shard.unwatch(self.key, self._interrupt)
        link, self._link = self._link, None
        if link is not None:
            await self.shard.release_link(link)

    # Steps

    async def _greet(self, connection: PipelinedConnection) -> None:
        self._asking, self._asks_next = self._asks_next, False
        try:
            self._client_id = await connection.call((b"CLIENT", b"ID"))
        except errors.ResponseError as error:
            if may_pass(error):
                raise
            self._client_id = None  # not allowed: waits can't be ended, they run out

    def _pop(self, connection: PipelinedConnection, wanted: int) -> None:
        """One blocking wait, and the rest of the burst in the same round trip."""
        self._popping = True
        commands: list[Command] = [self._wait]
        if wanted > 1:
            commands.append((b"ZPOPMIN", self.key, b"%d" % (wanted - 1)))
        pop = Pop(len(commands), self._popped, self._loop)
        if not self._asking:
            connection.post(pop, *commands)
            return
        for command in commands:
            connection.ask()
            connection.post(pop, command)

    def _popped(self, entries: list[Entry], error: Exception | None) -> None:
        self._popping = False
        if error is None and self._is_refused:
            self._is_refused = False
            self.shard.health.taken()
        try:
            if entries:
                self._deliver(self, entries)
        finally:
            if self._settled is not None:
                self._settled.set_result(None)
                self._settled = None
            if error is not None:
                self._failed(error)
            self.resume()

    def _failed(self, error: Exception) -> None:
        if self._link is None:
            return
        if may_pass(error):
            self._wait_out(error, self._link)
        elif isinstance(error, errors.AskError):
            self._pause()
            self.shard.spawn(self._follow(error, self._link))
        elif is_connection_loss(error):  # the link comes back and resumes
            self._lost()
        else:
            self._pause(_RETRY_REFUSED)
            self._refuse(error)

    def _wait_out(self, error: Exception, link: ReconnectingConnection) -> None:
        """Tries again, soon at first: after a switch there is a primary already."""
        self._pause(_RETRY_REFUSED if self._is_refused else _RETRY)
        self._is_refused = True
        self.shard.health.refused(error)
        if is_demotion(error):
            self._demotion = error
            self.shard.reopen(link, error)
        elif isinstance(error, errors.ClusterDownError):
            self.shard.spawn(self._follow(error, link))

    def _ready(self) -> None:
        if self._demotion is not None:
            self.shard.follow_primary(self._demotion)
            self._demotion = None
        self.resume()

    async def _follow(self, error: Any, link: ReconnectingConnection) -> None:
        """Reads where a Cluster's node says, or where the key is now.

        Nothing is popped meanwhile: it would be cut off on its way.
        """
        self._settling += 1
        try:
            self._asks_next = is_ask(error)
            if await self.shard.redirect(self.key, error):
                link.reopen()
        finally:
            self._settling -= 1
        self.resume()

    def _pause(self, seconds: float = _RETRY) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self.resume()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _down(self, error: Exception) -> None:
        """The link failed; what waiting doesn't mend is told to who waits."""
        link = self._link
        if link is None or link.was_up or is_connection_loss(error):
            return
        if not may_pass(error):
            self._link = None
            self.shard.spawn(self.shard.close_link(link))
            self._refuse(error)

    def _interrupt(self) -> None:
        """A sender was told that the key is elsewhere: look there too."""
        if self._popping:
            self.shard.spawn(self._unblock())

    async def _end_wait(self) -> None:
        patience = _FIRST_PATIENCE
        # A wait runs out by itself where it can't be ended; a silent server won't say.
        deadline = self._loop.time() + self.shard.wait + _MARGIN
        while self._popping:
            if self._loop.time() > deadline and self._link is not None:
                self._link.drop(errors.TimeoutError("no answer to the end of a wait"))
            if self._settled is None:
                self._settled = self._loop.create_future()
            settled = self._settled
            self._interrupt()
            # Not waiting yet when UNBLOCK overtook it on the other connection.
            await asyncio.wait([settled], timeout=patience)
            patience = min(2 * patience, _LONGEST_PATIENCE)

    async def _unblock(self) -> None:
        if self._client_id is not None:
            try:
                await self.shard.unblock(self.key, self._client_id)
            except errors.RedisError as error:
                if not (is_connection_loss(error) or may_pass(error)):
                    self._client_id = None  # refused: from now on waits run out
