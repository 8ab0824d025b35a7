"""Bytes that came for this process, into the mailboxes they are for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..exceptions import UnreadableMessage
from ..types import POSITION
from ..wire.codec import Codec, Message, copier
from ..wire.reserved import CLEAR, EXCLUDE, take_excluded
from .dropped import DropCounters
from .mailbox import MailboxGroup
from .registry import LocalChannels

Loop = asyncio.AbstractEventLoop | None

_NOBODY: frozenset[str] = frozenset()


class Order(Protocol):
    """Who brings messages that have a position into their order."""

    def take(
        self,
        message: Message,
        copy: Callable[[], Message],
        excluded: frozenset[str],
        here: Loop,
    ) -> set[str] | frozenset[str]:
        """Takes a message; the channels to which it is given in order, or was."""

    def note_loss(self) -> None:
        """Notes that messages may have been lost."""


class Delivery:
    """Opens each message once, whatever the number of channels that it is for.

    What can't be read, or is for no channel of this process, is dropped and counted.
    `on_clear` is called with the value of an entry `CLEAR`, and its key. `order` is
    given the messages that have a position.
    """

    def __init__(
        self,
        mailboxes: LocalChannels,
        codec: Codec,
        counters: DropCounters,
        on_clear: Callable[[Any, bytes], object] = lambda value, key: None,
        order: Order | None = None,
    ) -> None:
        self._mailboxes = mailboxes
        self._codec = codec
        self.counters = counters
        self._on_clear = on_clear
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
        without = None
        try:
            named, message, flat = self._codec.open(member, key)
            if self._order is not None and POSITION in message:
                channels = (named or ()) if channels is None else channels
                without = EXCLUDE if EXCLUDE in message else None
                again = copier(self._codec, member, key, message, flat, without)
                unknown = self._put_in_order(
                    self._order, inbox, channels, message, again, here
                )
                if unknown:
                    self._count_unknown(key, inbox, unknown)
                return
            if channels is None:
                channels = named or ()
            elif EXCLUDE in message:
                without = EXCLUDE
                channels = _not_excluded(message, channels)
        except UnreadableMessage as error:
            self.counters.unreadable(key, error)
            return
        if not channels:
            self._note_nobody(key, inbox, message, without)
            return
        copy = None  # who alone gets it needs none
        if len(channels) > 1:
            copy = copier(self._codec, member, key, message, flat, without)
        unknown = self._mailboxes.put(inbox, channels, message, copy, here)
        if unknown:
            self._count_unknown(key, inbox, unknown)

    def note_loss(self) -> None:
        """Notes that what was on its way may be lost."""
        if self._order is not None:
            self._order.note_loss()

    def _put_in_order(
        self,
        order: Order,
        inbox: MailboxGroup | None,
        channels: Sequence[str],
        message: Message,
        copy: Callable[[], Message],
        here: Loop,
    ) -> int:
        """As `LocalChannels.put`, of what has a position: followers get it in order."""
        excluded = take_excluded(message) if EXCLUDE in message else _NOBODY
        taken = order.take(message, copy, excluded, here)
        if taken.issuperset(channels):
            return 0
        rest = [one for one in channels if one not in taken and one not in excluded]
        return self._mailboxes.put(inbox, rest, message, copy, here) if rest else 0

    def _note_nobody(
        self,
        key: bytes,
        inbox: MailboxGroup | None,
        message: Message,
        without: str | None,
    ) -> None:
        if CLEAR in message:  # it is for the process itself
            self._on_clear(message[CLEAR], key)
        elif without is None:  # else all were excluded
            self._count_unknown(key, inbox, 1)

    def _count_unknown(
        self, key: bytes, inbox: MailboxGroup | None, number: int
    ) -> None:
        place = key if inbox is None else inbox.name
        self.counters.count("for no channel of this process", place, number)


def _not_excluded(message: Message, channels: Sequence[str]) -> Sequence[str]:
    """Whom a published message is for that isn't for all; it may be for nobody."""
    excluded = take_excluded(message)
    if CLEAR in message:
        return ()
    return [name for name in channels if name not in excluded]
