"""Django signals of a layer that gets more than is read: `overloaded`, `relieved`.

Both are sent with `sender` (the layer), `kind`, `name` and `fill` (0.0 to 1.0):
`overloaded` at 80 % of a capacity and beyond, `relieved` when it is below 50 % again;
for one name no more than once a second. The kinds:

`"channel"`: messages in Redis that wait for the channel `name`, or for the process
whose channels have names that begin so; told in the process that sends to it.

`"mailbox"`: messages that wait in this process for the channel `name`, whose consumer
doesn't read; looked at once a second, where an event loop runs.

`"unconfirmed"`: sends to the host `name` that have no answer yet, without
`confirm_sends`; looked at as often.

Receivers are called in the middle of the layer's work: they should return at once, and
must not be coroutines. What they raise is logged by Django and stops nothing.
"""

from __future__ import annotations

from typing import Any

from django.dispatch import Signal

from . import _overload

__all__ = ["overloaded", "relieved"]

overloaded = Signal()
relieved = Signal()


def _tell(layer: object, is_over: bool, **about: Any) -> None:
    signal = overloaded if is_over else relieved
    signal.send_robust(sender=layer, **about)


_overload.listener = _tell
