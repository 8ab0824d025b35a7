"""What was published, into the mailboxes of those who joined its name."""

from __future__ import annotations

from ..exceptions import UnreadableMessage
from ..mailboxes.dropped import DropCounters
from ..mailboxes.registry import LocalChannels
from ..wire.codec import Codec, copier
from .owners import Owner
from .table import SubscriptionTable


class Delivery:
    """Opens a published message once, whatever the number of channels it is for.

    `codec` is for payloads.
    """

    def __init__(
        self,
        table: SubscriptionTable,
        codec: Codec,
        mailboxes: LocalChannels,
        counters: DropCounters,
    ) -> None:
        self._table = table
        self._codec = codec
        self._mailboxes = mailboxes
        self._counters = counters

    def deliver(self, owner: Owner, name: bytes, payload: bytes) -> None:
        """Takes what an owner heard of a name."""
        channels = self._table.channels(name, owner)
        if not channels:  # it was on its way when the last channel left, or:
            if self._table.is_taken(name, owner):
                self._counters.count("came to an event loop that stood still", name)
            return
        try:
            _, message, flat = self._codec.open(payload, name)
        except UnreadableMessage as error:
            self._counters.unreadable(name, error)
            return
        copy = None  # who alone gets it needs none
        if len(channels) > 1:
            copy = copier(self._codec, payload, name, message, flat)
        unknown = self._mailboxes.put(None, channels, message, copy, owner.loop)
        if unknown:
            self._counters.count("for no channel of this process", name, unknown)
