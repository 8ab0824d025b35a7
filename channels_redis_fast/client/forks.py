"""What a forked child does first: it lets go of what is its parent's.

In this order, in which each step may rely on those before: sockets, so that nothing
reaches the parent's servers any more; pools of blocking connections; event loops,
where layers begin anew and may want connections of their own.
"""

from __future__ import annotations

import contextlib
import enum
import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol


class Step(enum.IntEnum):
    """When something is called in a child."""

    SOCKETS = 1
    POOLS = 2
    LOOPS = 3


class Open(Protocol):
    """Something with a socket."""

    def fileno(self) -> int:
        """The descriptor of its socket; -1 when there is none."""


def on_fork(step: Step, callback: Callable[[], None]) -> None:
    """Has something called in every child of this process, in the order of the steps.

    Each is called, whatever others raise.
    """
    _callbacks.append((step, callback))
    _callbacks.sort(key=lambda one: one[0])


def leave_to_parent(socket: Open) -> None:
    """Has children of this process let go of a socket, without a word to anybody.

    What stands for it stays, untouched, as its end might be one of the parent's, too.
    """
    _open.add(socket)


def bury(*parents: Any) -> None:
    """Keeps what is the parent's as it is: finalisers would touch sockets and loops."""
    _graveyard.extend(parents)


_open: weakref.WeakSet[Any] = weakref.WeakSet()
_callbacks: list[tuple[Step, Callable[[], None]]] = []
_graveyard: list[Any] = []


def _let_go() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for socket in list(_open):
            if (number := socket.fileno()) >= 0:
                # Closing it would take it out of the parent's epoll. Who still has it,
                # in a frame that goes on, reads its end.
                os.dup2(null, number, inheritable=False)
            bury(socket)
    finally:
        os.close(null)
    _open.clear()


def _after_fork() -> None:
    with contextlib.ExitStack() as stack:  # which calls the last one first
        for _, callback in reversed(_callbacks):
            stack.callback(callback)


on_fork(Step.SOCKETS, _let_go)
if hasattr(os, "register_at_fork"):  # not on Windows, which doesn't fork
    os.register_at_fork(after_in_child=_after_fork)
