"""What a server refused, held back until it has answered all that it was sent."""

from __future__ import annotations

import itertools
import math
from asyncio import Future
from typing import Any, NamedTuple, Protocol

from ..commands.command import Command
from ..commands.scripts import is_repeatable, key_of


class Receiver(Protocol):
    """Who gets a command's outcome: a future, or what stands in its place."""

    def done(self) -> bool:
        """Whether nobody waits for it any more."""

    def set_result(self, reply: Any, /) -> None:
        """Takes the reply."""

    def set_exception(self, error: Exception, /) -> None:
        """Takes the error: of the command, or of the connection."""


class Sent(NamedTuple):
    """What was written, when (`time.monotonic()`), and has no answer.

    Who has no `command` is told of its errors at once.
    """

    receiver: Receiver
    command: Command | None
    at: float

    def is_late(self, oldest: float) -> bool:
        """Whether a caller waits since before then.

        Who is no future that `submit` got looks after his own time, or has none, as a
        reader whose batch is on its way.
        """
        is_caller = self.command is not None and isinstance(self.receiver, Future)
        return self.at <= oldest and is_caller and not self.receiver.done()


# Commands that got errors and may be tried again, in order.
Refused = list[tuple[Sent, Exception]]


class HeldBack:
    """Commands that may be tried again, in the order in which they were refused."""

    def __init__(self) -> None:
        # Their running numbers by key, also of keys of which none is left.
        self.by_key: dict[bytes | str, list[int]] = {}
        self._found: dict[int, tuple[Sent, Exception]] = {}
        self._numbers = itertools.count()

    def keep(self, sent: Sent, command: Command, error: Exception) -> None:
        """Adds one."""
        number = next(self._numbers)
        self._found[number] = sent, error
        self.by_key.setdefault(key_of(command), []).append(number)

    def overtakes(self, taken: Sent) -> bool:
        """Whether what the server took has to run again, after others.

        It refused some for its key before, and changed its mind. If what it took may
        run twice, all are tried again in order; else those lost their turn.
        """
        if taken.command is None:
            return False
        key = key_of(taken.command)
        before = self.by_key.get(key)
        if before and is_repeatable(taken.command):
            self.keep(taken, taken.command, self._found[before[-1]][1])
            return True
        if before:
            self.by_key[key] = []
            tell([self._found.pop(number) for number in before])
        return False

    def tell_late(self, oldest: float) -> float:
        """Tells callers who wait since before `oldest`: too late to try again.

        Seconds until the next one is late.
        """
        found = self._found.values()
        tell([one for one in found if one[0].is_late(oldest)])
        moments = [sent.at for sent, _ in found if sent.at > oldest]
        return min(moments, default=math.inf) - oldest

    def release(self) -> Refused:
        """Gives all up, in order."""
        refused = list(self._found.values())
        self._found.clear()
        self.by_key.clear()
        return refused


def tell(refused: Refused) -> None:
    """Leaves what was refused to its callers."""
    for sent, error in refused:
        if not sent.receiver.done():
            sent.receiver.set_exception(error)
