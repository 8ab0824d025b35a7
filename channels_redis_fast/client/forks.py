"""Sockets that a forked child has from its parent, and lets go of."""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol


class Open(Protocol):
    """Something with a socket."""

    def fileno(self) -> int:
        """The descriptor of its socket; -1 when there is none."""


def leave_to_parent(socket: Open) -> None:
    """Has children of this process let go of a socket, without a word to anybody.

    What stands for it stays, untouched, as its end might be one of the parent's, too.
    """
    _open.add(socket)


_open: weakref.WeakSet[Any] = weakref.WeakSet()
_graveyard: list[Any] = []


def _after_fork() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for socket in list(_open):
            if (number := socket.fileno()) >= 0:
                # Closing it would take it out of the parent's epoll. Who still has it,
                # in a frame that goes on, reads its end.
                os.dup2(null, number, inheritable=False)
            _graveyard.append(socket)
    finally:
        os.close(null)
    _open.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which doesn't fork
    os.register_at_fork(after_in_child=_after_fork)
