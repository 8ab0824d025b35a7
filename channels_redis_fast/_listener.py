"""Listening to groups on a channel of its own, which is gone when that ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from redis.exceptions import RedisError

from .mailboxes.waiters import ChannelEnded
from .runtime.loops import may_block
from .types import Recovery
from .wire.codec import Message


class Listener:
    """What `layer.listen` returns: the messages of some groups.

    Entered by `async with`, once, it is an iterator of messages. For a loop that is
    busy `capacity` messages (of the channel's `channel_capacity`) wait.
    However the block ends, the groups are left and nothing remains; who iterates in
    another task then comes to the end of the loop. `join` adds the channel to a group;
    `recovery` is what it returned for the first one.
    """

    def __init__(
        self, layer: Any, groups: Sequence[str], join: Callable[[str, str], Any]
    ) -> None:
        self.recovery: Recovery | None = None
        self._layer = layer
        self._join = join
        self._groups = groups
        self._channel: str | None = None  # as long as it is entered
        self._is_used = False

    async def __aenter__(self) -> Listener:
        """Returns when all messages that are sent from now on will come.

        Raises `RuntimeError` the second time, and what `group_add` or `group_join` do.
        """
        if self._is_used:
            raise RuntimeError("listen() was entered before: call it again instead")
        asyncio.get_running_loop()  # raises, where nothing could be received
        self._is_used = True
        self._channel = await self._layer.new_channel()
        try:
            for group in self._groups:
                recovery = await self._join(group, self._channel)
                self.recovery = self.recovery or recovery
        except BaseException:
            self._end(self._channel)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the groups: at once, or before long if that fails or is cancelled."""
        if (channel := self._channel) is None:
            return
        self._channel = None
        try:
            with suppress(RedisError):
                await self._leave(channel)
        finally:
            self._end(channel)

    def __aiter__(self) -> Listener:
        """The iterator, which is itself."""
        return self

    async def __anext__(self) -> Message:
        """The next message, however long it takes; cancelling loses none.

        Raises `RuntimeError` if it wasn't entered.
        """
        if not self._is_used:
            raise RuntimeError("enter listen() first: async with ... as messages")
        if self._channel is None:
            raise StopAsyncIteration
        try:
            message: Message = await self._layer.receive(self._channel)
        except ChannelEnded:
            raise StopAsyncIteration from None
        return message

    async def _leave(self, channel: str) -> None:
        # Nothing begins anew in an event loop that is being shut down.
        if may_block() or self._layer._loops.existing() is not None:
            await self._layer.group_discard_all(channel)

    def _end(self, channel: str) -> None:
        """Ends the channel: what it still is a member of, it leaves in background."""
        self._channel = None
        self._layer._mailboxes.end(channel)
