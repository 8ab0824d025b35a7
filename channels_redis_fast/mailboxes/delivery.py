"""Bytes that came for this process, into the mailboxes they are for."""

from __future__ import annotations

import asyncio

from ..exceptions import UnreadableMessage
from ..wire.codec import Codec, copier
from .dropped import DropCounters
from .mailbox import MailboxGroup
from .registry import LocalChannels


class Delivery:
    """Opens each message once, whatever the number of channels that it is for.

    What can't be read, or is for no channel of this process, is dropped and counted.
    """

    def __init__(
        self, mailboxes: LocalChannels, codec: Codec, counters: DropCounters
    ) -> None:
        self._mailboxes = mailboxes
        self._codec = codec
        self._counters = counters

    def deliver(
        self,
        member: bytes,
        key: bytes,
        inbox: MailboxGroup,
        here: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Delivers what was popped from a process's key; `here`: the running loop."""
        codec, counters = self._codec, self._counters
        try:
            channels, message, flat = codec.open(member, key)
        except UnreadableMessage as error:
            counters.unreadable(key, error)
            return
        copy = None
        if channels and len(channels) > 1:
            copy = copier(codec, member, key, message, flat)
        unknown = self._mailboxes.put(inbox, channels or (), message, copy, here)
        if unknown or not channels:
            counters.count("for no channel of this process", inbox.name, unknown or 1)
