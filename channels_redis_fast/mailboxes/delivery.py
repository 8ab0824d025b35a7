"""Bytes that came for this process, into the mailboxes they are for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from .._counting import Messages
from ..exceptions import UnreadableMessage
from ..wire.codec import Codec, copier
from .dropped import DropCounters
from .mailbox import MailboxGroup
from .registry import LocalChannels

FOR_NOBODY = "for no channel of this process"


class Delivery:
    """Opens each message once, whatever the number of channels that it is for.

    What can't be read, or is for no channel of this process, is dropped and counted by
    `counters`, all else by `counts`, which are this thread's or loop's.
    """

    def __init__(
        self,
        mailboxes: LocalChannels,
        codec: Codec,
        counters: DropCounters,
        counts: Messages,
    ) -> None:
        self._mailboxes = mailboxes
        self._codec = codec
        self.counters = counters
        self.counts = counts

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
        self.counts.received += 1
        try:
            named, message, flat = codec.open(member, key)
        except UnreadableMessage as error:
            counters.unreadable(key, error)
            return
        channels = (named or ()) if channels is None else channels
        copy = None  # who alone gets it needs none
        if len(channels) > 1:
            copy = copier(codec, member, key, message, flat)
            self.counts.copies += len(channels) - 1
        unknown = self._mailboxes.put(inbox, channels, message, copy, here)
        if unknown or not channels:
            place = key if inbox is None else inbox.name
            counters.count(FOR_NOBODY, place, unknown or 1)
