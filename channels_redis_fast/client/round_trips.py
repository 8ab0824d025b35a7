"""How long Redis takes to answer, by a sample: to time each call would be felt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from .connection import PipelinedConnection


def time_trip(connection: PipelinedConnection, note: Callable[[float], object]) -> None:
    """Tells `note` how long (seconds) a round trip takes, on a connection in use.

    That is one on which something came since the last time, which is over.
    """
    if connection.timed in (None, connection.heard) or connection.paused:
        return
    connection.timed = None
    began = monotonic()

    def done(reply: asyncio.Future[Any]) -> None:
        connection.timed = connection.heard
        if not reply.cancelled() and reply.exception() is None:
            note(monotonic() - began)

    connection.call((b"PING",)).add_done_callback(done)
