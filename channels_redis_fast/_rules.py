"""What errors mean and which of them are retried, for both ways to run commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard

from redis import exceptions as errors

from ._connection import Command
from ._scripts import key_of

# The server can't answer now, and may soon.
_PASSING = (errors.BusyLoadingError, errors.ClusterDownError, errors.TryAgainError)
# The server is no primary (any more): the primary is to be looked up again.
_DEMOTED = (errors.ReadOnlyError, errors.MasterDownError)
_PAUSE = 0.05


def is_demotion(error: BaseException) -> bool:
    """Whether the error says that the server stopped being the primary."""
    return isinstance(error, _DEMOTED) or str(error).startswith("UNBLOCKED")


def is_ask(error: BaseException) -> TypeGuard[errors.AskError]:
    """Whether the error sends one command elsewhere; a MOVED sends all of them."""
    # redis-py's MovedError is an AskError, too.
    is_moved = isinstance(error, errors.MovedError)
    return isinstance(error, errors.AskError) and not is_moved


def is_passing(error: BaseException) -> bool:
    """Whether the error is one that goes away by itself."""
    return isinstance(error, _PASSING) and not is_demotion(error)


def is_connection_loss(error: BaseException) -> bool:
    """Whether the error says that the server was not reached or not heard."""
    # redis-py's classes for these are ConnectionErrors, too.
    answered = (
        errors.AuthenticationError,
        errors.AuthorizationError,
        errors.BusyLoadingError,
    )
    return isinstance(
        error, (errors.ConnectionError, errors.TimeoutError, OSError)
    ) and not isinstance(error, answered)


def remedy(error: BaseException, repeat: bool, redirected: bool) -> float | None:
    """Seconds to wait before a retry; None when the error is the caller's.

    `repeat` says that running the command twice is harmless, `redirected` that the
    error says where to go instead.
    """
    if isinstance(error, errors.NoScriptError) or redirected:
        return 0.0
    if is_passing(error) or is_demotion(error):
        return _PAUSE
    if repeat and is_connection_loss(error):
        return 0.0
    return None


def retriable(commands: list[Command], replies: Iterable[Any]) -> list[int]:
    """Which of the commands that failed may be tried again and keep their order.

    Not those that a later one for the same key overtook.
    """
    found: list[int] = []
    overtaken: set[Any] = set()
    outcomes = list(replies)
    for position in reversed(range(len(outcomes))):
        key = key_of(commands[position])
        if not isinstance(outcomes[position], Exception):
            overtaken.add(key)
        elif key not in overtaken:
            found.append(position)
    return found[::-1]
