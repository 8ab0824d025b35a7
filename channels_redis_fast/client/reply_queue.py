"""What was written on a connection and has no answer yet, in order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
from redis import exceptions as errors

from ..commands.command import Command
from ..commands.errors import Kind, kind_of, reply_error, unanswered
from ..commands.scripts import key_of
from .held_back import HeldBack, Refused, Sent, tell

Push = Callable[[list[Any]], None]
Explain = Callable[[errors.RedisError], errors.RedisError]

# Kinds of messages that a subscribed connection gets without asking (RESP2). The last
# one also answers SUNSUBSCRIBE, which has no reply of its own, and looks the same then.
_PUSHES = frozenset((b"message", b"smessage", b"sunsubscribe"))

_NOT_YET = object()
# Of these it is known that they did not run.
_REFUSALS = (Kind.PASSING, Kind.DEMOTED, Kind.MOVED, Kind.UNKNOWN)


class ReplyQueue:
    """Gives each reply to the receiver whose turn it is.

    With `on_push`, messages of subscriptions go there. `explain` says what an error
    reply means; callers get what it returns.

    Commands of `submit` that may be tried again go to `on_refused`, in order, when all
    that was written is answered, or lost with the connection. Meanwhile it is `paused`,
    as later ones must not overtake them; `on_resumed` is called when it isn't any more.
    """

    def __init__(self, on_push: Push | None, explain: Explain) -> None:
        self.paused = False
        self.error: errors.RedisError | None = None  # why the connection is gone
        self.on_refused: Callable[[Any, Refused], None] = _tell
        self.on_resumed: Callable[[Any], None] | None = None
        self.scripts: set[bytes] = set()  # that were sent here as a text
        self._on_push = on_push
        self._waiting: deque[tuple[Any, Command | None, float]] = deque()  # as Sent
        self._held = HeldBack()  # what was refused since all was answered
        self._is_full = False  # the transport's buffer
        self._drained = asyncio.Event()
        self._reader = hiredis.Reader(
            protocolError=errors.InvalidResponse,
            replyError=lambda text: explain(reply_error(text)),
            notEnoughData=_NOT_YET,
        )

    @property
    def is_idle(self) -> bool:
        """Whether no command waits for its outcome."""
        return not self._waiting and not self._held.by_key

    def unanswered(self) -> tuple[int, float]:
        """How many commands have no reply yet, and when the first was given.

        That is `time.monotonic()`, infinite if there is none. From any thread.
        """
        with contextlib.suppress(IndexError):  # it was answered at this moment
            return len(self._waiting), self._waiting[0][2]
        return 0, math.inf

    @property
    def holds_back(self) -> bool:
        """Whether something was refused, and is not given up yet."""
        return bool(self._held.by_key)

    def keys_under_way(self) -> set[bytes | str]:
        """The keys of commands that may be tried again, and have no outcome yet."""
        found = set(self._held.by_key)
        for receiver, command, _ in self._waiting:
            if command is not None and not receiver.done():
                found.add(key_of(command))
        return found

    async def drained(self) -> None:
        """Waits while nothing more is taken; returns at once when it is."""
        while self.paused and self.error is None:
            self._drained.clear()
            await self._drained.wait()

    # Steps

    def _resolve(self) -> None:
        gets, waiting, on_push = self._reader.gets, self._waiting, self._on_push
        held = self._held.by_key
        while (reply := gets()) is not _NOT_YET:
            # By the newer protocol a push is of a subclass of list.
            if on_push and isinstance(reply, list) and reply and reply[0] in _PUSHES:
                on_push(reply)
                continue
            receiver, command, at = waiting.popleft()
            if receiver.done():
                continue  # its caller was cancelled
            if isinstance(reply, errors.RedisError):
                self._refuse(Sent(receiver, command, at), reply)
                continue
            if held and self._held.overtakes(Sent(receiver, command, at)):
                continue
            receiver.set_result(reply)
        if held and not waiting:
            self._hand_back()

    def _refuse(self, sent: Sent, error: errors.RedisError) -> None:
        kind = kind_of(error)
        if kind is Kind.UNKNOWN:
            self.scripts.clear()
        if sent.command is None or kind not in _REFUSALS:
            sent.receiver.set_exception(error)
        else:
            self._keep(sent, sent.command, error)

    def _keep(self, sent: Sent, command: Command, error: Exception) -> None:
        """Holds back what may be tried again, until all is answered."""
        self.paused = True
        self._held.keep(sent, command, error)

    def _hand_back(self) -> None:
        """Gives up what was refused, in order."""
        self.on_refused(self, self._held.release())
        self._resume()

    def _resume(self) -> None:
        if self._is_full or self._held.by_key or self.error is not None:
            return
        self.paused = False
        self._drained.set()
        if self.on_resumed is not None:
            self.on_resumed(self)

    def _tell_late(self, oldest: float, deadline: float) -> float:
        """Tells callers who wait since before then; seconds until the next is late.

        The others get their answers, which keep coming.
        """
        for sent in itertools.starmap(Sent, self._waiting):
            if sent.at > oldest:
                return sent.at - oldest
            if sent.is_late(oldest):
                sent.receiver.set_exception(unanswered(deadline))
        return math.inf

    def _fail_all(self) -> None:
        """No answer comes any more."""
        self.paused = True
        while self._waiting:
            sent = Sent(*self._waiting.popleft())
            if sent.receiver.done():
                continue
            if sent.command is None:
                sent.receiver.set_exception(self._failure())
            else:
                self._keep(sent, sent.command, self._failure())
        if self._held.by_key:
            self._hand_back()
        self._drained.set()

    def _failure(self) -> errors.ConnectionError:
        # A new instance for each caller: a raised exception collects a traceback.
        return errors.ConnectionError(*self.error.args if self.error else ())


def _tell(_: ReplyQueue, refused: Refused) -> None:
    tell(refused)
