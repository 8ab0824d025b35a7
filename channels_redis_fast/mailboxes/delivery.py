"""Bytes that came for this process, into the mailboxes they are for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from ..exceptions import UnreadableMessage
from ..types import POSITION
from ..wire.codec import Codec, Message, copier
from .dropped import DropCounters
from .mailbox import MailboxGroup
from .registry import LocalChannels

Loop = asyncio.AbstractEventLoop | None


class Order(Protocol):
    """Who brings messages that have a position into their order."""

    def take(
        self,
        message: Message,
        copy: Callable[[], Message],
        channels: Sequence[str],
        here: Loop,
    ) -> Sequence[str]:
        """Takes a message; those of its channels that it isn't given to in order."""

    def note_loss(self) -> None:
        """Notes that messages may have been lost."""


class Delivery:
    """Opens each message once, whatever the number of channels that it is for.

    What can't be read, or is for no channel of this process, is dropped and counted.
    `order` is given the messages that have a position.
    """

    def __init__(
        self,
        mailboxes: LocalChannels,
        codec: Codec,
        counters: DropCounters,
        order: Order | None = None,
    ) -> None:
        self._mailboxes = mailboxes
        self._codec = codec
        self.counters = counters
        self._order = order

    def deliver(
        self,
        member: bytes,
        key: bytes,
        inbox: MailboxGroup | None,
        here: Loop = None,
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
        if len(channels) > 1:
            copy = copier(codec, member, key, message, flat)
        if self._order is not None and POSITION in message and channels:
            copy = copy or copier(codec, member, key, message, flat)
            channels = self._order.take(message, copy, channels, here)
            if not channels:
                return
        unknown = self._mailboxes.put(inbox, channels, message, copy, here)
        if unknown or not channels:
            place = key if inbox is None else inbox.name
            counters.count("for no channel of this process", place, unknown or 1)

    def note_loss(self) -> None:
        """Notes that what was on its way may be lost."""
        if self._order is not None:
            self._order.note_loss()
