"""Bytes that came for this process, into the mailboxes they are for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ..exceptions import UnreadableMessage
from ..types import POSITION
from ..wire.codec import Codec, Message, copier
from .dropped import DropCounters
from .mailbox import MailboxGroup
from .registry import LocalChannels

# Takes a message with a position, what copies it, its channels and the running loop;
# returns those channels that don't get it by its place in an order.
Take = Callable[
    [Message, Callable[[], Message], Sequence[str], asyncio.AbstractEventLoop | None],
    Sequence[str],
]


class Delivery:
    """Opens each message once, whatever the number of channels that it is for.

    What can't be read, or is for no channel of this process, is dropped and counted.
    `take` is given the messages that have a position.
    """

    def __init__(
        self,
        mailboxes: LocalChannels,
        codec: Codec,
        counters: DropCounters,
        take: Take | None = None,
    ) -> None:
        self._mailboxes = mailboxes
        self._codec = codec
        self.counters = counters
        self._take = take

    def deliver(
        self,
        member: bytes,
        key: bytes,
        inbox: MailboxGroup | None,
        here: asyncio.AbstractEventLoop | None = None,
        channels: Sequence[str] | None = None,
    ) -> None:
        """Delivers what came by a key or a name; `here`: the running loop.

        The message says which channels it is for, unless they are given.
        """
        codec, counters = self._codec, self.counters
        try:
            named, message, flat = codec.open(member, key)
        except UnreadableMessage as error:
            counters.unreadable(key, error)
            return
        channels = (named or ()) if channels is None else channels
        copy = None  # who alone gets it needs none
        is_placed = self._take is not None and POSITION in message
        if len(channels) > 1 or is_placed:
            copy = copier(codec, member, key, message, flat)
            if self._take is not None and is_placed and channels:
                channels = self._take(message, copy, channels, here)
                if not channels:
                    return
        unknown = self._mailboxes.put(inbox, channels, message, copy, here)
        if unknown or not channels:
            place = key if inbox is None else inbox.name
            counters.count("for no channel of this process", place, unknown or 1)
