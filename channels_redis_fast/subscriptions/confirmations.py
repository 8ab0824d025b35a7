"""What a server answers to the subscriptions on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from redis import exceptions as errors

from ..client.connection import PipelinedConnection, consume
from ..commands.publishing import CLASSIC, Verbs

Confirmation = asyncio.Future[Any]


def is_of_the_name(error: BaseException) -> bool:
    """Whether an error says something of a name alone: not here, or not allowed."""
    if isinstance(error, errors.ClusterDownError):
        return "not served" in str(error)  # else it is of all names
    return isinstance(error, (errors.AskError, errors.NoPermissionError))


class Confirmations:
    """The answers, that are there or to come, by name.

    Several wait for one: who is cancelled must not cancel it.
    """

    def __init__(self, connection: PipelinedConnection, verbs: Verbs) -> None:
        self._connection = connection
        self._verbs = verbs
        self._by_name: dict[bytes, Confirmation] = {}

    def get(self, name: bytes) -> Confirmation | None:
        """The answer for a name that was requested."""
        return self._by_name.get(name)

    def missing(self, names: Iterable[bytes]) -> list[bytes]:
        """Those of some names that were not requested."""
        return [name for name in names if name not in self._by_name]

    def request(self, name: bytes) -> Confirmation:
        """Subscribes to a name, unless that was requested already."""
        confirmation = self._by_name.get(name)
        if confirmation is None:
            confirmation = self._connection.call((self._verbs.subscribe, name))
            confirmation.add_done_callback(consume)
            self._by_name[name] = confirmation
        return confirmation

    def forget(self, name: bytes) -> Confirmation | None:
        """Forgets a name, which the server gave up."""
        return self._by_name.pop(name, None)

    def forget_refused(self) -> None:
        """Forgets the names that the server refused: they can be requested again."""
        for name, answer in list(self._by_name.items()):
            if answer.done() and answer.exception() is not None:
                del self._by_name[name]

    def withdraw(self, name: bytes) -> None:
        """Unsubscribes a name; nobody waits for the answer."""
        confirmation = self.forget(name)
        if confirmation is None:
            return
        if not confirmation.done() or confirmation.exception() is None:
            self._say_farewell(name)

    def _say_farewell(self, name: bytes) -> None:
        connection, command = self._connection, (self._verbs.unsubscribe, name)
        if self._verbs is CLASSIC:
            connection.call(command).add_done_callback(consume)
        elif connection.error is None:
            connection.write(command)
            connection.post(_Farewell(connection), (b"PING",))


class _Farewell:
    """Takes the answer to SUNSUBSCRIBE, which has none of its own.

    It is answered by a push, which may also come by itself when the slot leaves the
    node, or by an error. So PING follows, and what comes before its answer is a push
    or the error.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: PipelinedConnection) -> None:
        self._connection = connection

    def done(self) -> bool:
        """Never: nobody cancels it."""
        return False

    def set_result(self, reply: Any) -> None:
        """Takes the answer to PING."""

    def set_exception(self, error: Exception) -> None:
        """Takes the error of either; what is of neither's own ends the connection."""
        if self._connection.error is not None or "'ping'" in str(error):
            return  # it is gone, or PING is not allowed
        if is_of_the_name(error) or isinstance(error, errors.ClusterDownError):
            self._connection.expect(self)
        else:
            self._connection.abort(error)
