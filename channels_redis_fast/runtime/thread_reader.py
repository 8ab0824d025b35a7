"""Receiving in a thread, without an event loop.

A private loop for each call would be less code, and was tried. What a signal handler
or a time limit raises comes anywhere: in a callback, asyncio logs it and goes on. The
limit is lost then, and messages with the connection whose callback it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..exceptions import UnreadableMessage
from ..mailboxes.delivery import Delivery
from ..mailboxes.dropped import DropCounters
from ..mailboxes.mailbox import MailboxGroup
from ..mailboxes.registry import LocalChannels
from ..mailboxes.waiters import NO_LOOP, ThreadWaiter
from ..wire.codec import Codec, Message
from .popping import Popper

_LOOK_AFTER = 1.0  # seconds, between looks at whether another loop still pops


def pop_message(
    popper: Popper, codec: Codec, counters: DropCounters, deadline: float | None
) -> Message:
    """The next message of a normal channel; raises `TimeoutError` at the deadline."""
    while (entry := popper.pop(deadline)) is not None:
        try:
            return codec.open(entry[0], popper.key)[1]
        except UnreadableMessage as error:
            counters.unreadable(popper.key, error)
    raise TimeoutError("no message in time")


class ThreadReader:
    """Receives once on a channel of this process, in the calling thread.

    Of the threads that wait, one at a time owns the key, and pops for all. `offer` is
    called when it leaves the key to whoever waits elsewhere.
    """

    loop = NO_LOOP

    def __init__(
        self,
        popper: Popper,
        mailboxes: LocalChannels,
        delivery: Delivery,
        offer: Callable[[MailboxGroup], None],
    ) -> None:
        self._popper = popper
        self._mailboxes = mailboxes
        self._owners = mailboxes.owners
        self._delivery = delivery
        self._offer = offer
        self._waiter = ThreadWaiter()
        self._before: int | None = None  # the client whose wait is to be ended

    def receive(self, channel: str, deadline: float | None) -> Message:
        """The channel's next message; raises `TimeoutError` at the deadline."""
        waiter = self._waiter
        inbox = self._mailboxes.begin_in_thread(channel, waiter)
        try:
            while (message := waiter.message()) is None:
                self._popper.tidy()
                owner = self._owners.ensure(inbox, self._take_over)
                if owner is self:
                    self._read(inbox, deadline)
                else:
                    self._wait(inbox, owner, deadline)
                if deadline is not None and time.monotonic() >= deadline:
                    break
            if (message := waiter.message()) is None:
                raise TimeoutError("no message in time")
        except BaseException:
            self._mailboxes.withdraw(waiter)
            raise
        return message

    # As an owner of the key

    def resume(self) -> None:
        """Nothing: it pops as long as it lasts."""

    def retire(self) -> None:
        """Nothing: it ends by itself."""

    def stands_still(self) -> bool:
        """Never."""
        return False

    def _take_over(self, inbox: MailboxGroup) -> ThreadReader:
        # From a loop that stands still, if from anybody.
        self._before = inbox.reader and inbox.reader.waiting_client
        return self

    def _read(self, inbox: MailboxGroup, deadline: float | None) -> None:
        """Pops and delivers until the own message has come."""
        popper = self._popper
        try:
            if self._before is not None:
                popper.end_wait_of(self._before)
            while not self._is_served():
                entry = popper.pop(deadline, self._is_served)
                if entry is None:
                    return
                self._delivery.deliver(entry[0], popper.key, inbox)
        finally:
            self._owners.release(inbox, self)
            self._offer(inbox)

    def _wait(self, inbox: MailboxGroup, owner: Any, deadline: float | None) -> None:
        """Leaves the popping to who does it already."""
        try:
            owner.resume()
        except RuntimeError:  # its loop was closed over its head
            self._owners.release(inbox, owner)
        else:
            # Its loop may stand still from now on, and won't say so.
            left = _LOOK_AFTER if deadline is None else deadline - time.monotonic()
            self._waiter.wait(min(left, _LOOK_AFTER))

    def _is_served(self) -> bool:
        return self._waiter.message() is not None
