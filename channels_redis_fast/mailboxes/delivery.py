"""Bytes that came for this process, into the mailboxes they are for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from .._counting import Messages
from ..exceptions import UnreadableMessage
from ..wire.codec import Codec, Message, copier
from ..wire.reserved import CLEAR, EXCLUDE, take_excluded
from .dropped import DropCounters
from .mailbox import MailboxGroup
from .registry import LocalChannels

FOR_NOBODY = "for no channel of this process"


class Delivery:
    """Opens each message once, whatever the number of channels that it is for.

    What can't be read, or is for no channel of this process, is dropped and counted by
    `counters`, all else by `counts`, which are this thread's or loop's. `on_clear` is
    called with the value of an entry `CLEAR`, and its key.
    """

    def __init__(
        self,
        mailboxes: LocalChannels,
        codec: Codec,
        counters: DropCounters,
        counts: Messages,
        on_clear: Callable[[Any, bytes], object] = lambda value, key: None,
    ) -> None:
        self._mailboxes = mailboxes
        self._codec = codec
        self.counters = counters
        self.counts = counts
        self._on_clear = on_clear

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
        codec, counters, without = self._codec, self.counters, None
        self.counts.received += 1
        try:
            named, message, flat = codec.open(member, key)
            if channels is None:
                channels = named or ()
            elif EXCLUDE in message:
                without = EXCLUDE
                channels = self._not_excluded(key, message, channels)
        except UnreadableMessage as error:
            counters.unreadable(key, error)
            return
        copy = None  # who alone gets it needs none
        if len(channels) > 1:
            copy = copier(codec, member, key, message, flat, without)
            self.counts.copies += len(channels) - 1
        unknown = self._mailboxes.put(inbox, channels, message, copy, here)
        if unknown or not channels:
            self._note_unknown(key, inbox, message, unknown, without is not None)

    def _not_excluded(
        self, key: bytes, message: Message, channels: Sequence[str]
    ) -> Sequence[str]:
        """Whom a published message is for that isn't for all; it may be for nobody."""
        excluded = take_excluded(message)
        if CLEAR in message:
            self._on_clear(message[CLEAR], key)
            return ()
        return [name for name in channels if name not in excluded]

    def _note_unknown(
        self,
        key: bytes,
        inbox: MailboxGroup | None,
        message: Message,
        unknown: int,
        is_partial: bool,
    ) -> None:
        if not unknown and (is_partial or CLEAR in message):
            self.counts.copies -= 1  # it is for nobody, or for the process itself
            if not is_partial:
                self._on_clear(message[CLEAR], key)
            return
        place = key if inbox is None else inbox.name
        self.counters.count(FOR_NOBODY, place, unknown or 1)
