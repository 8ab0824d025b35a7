"""Keys that went to another node while commands for them are on their way."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from .backlog import Backlog
from .connection import PipelinedConnection, consume
from .reconnecting import ReconnectingConnection
from .topology import Address, Topology

Keys = set[bytes | str]

_SOON = 0.005  # seconds


class Handovers:
    """Has later calls for such keys wait, until the former nodes have answered.

    These send their callers after the key, and the first to come keep their places.
    `links` are those to the nodes in use, `backlog` is where the later calls wait.
    """

    def __init__(
        self,
        topology: Topology,
        links: dict[Address, ReconnectingConnection],
        backlog: Backlog,
    ) -> None:
        self._topology = topology
        self._links = links
        self._backlog = backlog
        self._seen = 0  # of the topology's changes
        self._under_way: list[Keys] = []

    def review(self) -> None:
        """Looks for such keys, if slots have other owners than before."""
        if self._topology.changes == self._seen:
            return
        self._seen, owner = self._topology.changes, self._topology.owner
        for address, link in self._links.items():
            if (connection := link.connection) is not None:
                keys = connection.keys_under_way()
                if gone := {key for key in keys if owner(key) != address}:
                    self._under_way.append(gone)
                    # Replies keep their order: this one is the last of theirs.
                    answered = functools.partial(self._answered, connection, gone)
                    connection.call((b"PING",)).add_done_callback(answered)
        self._hold()

    def _answered(
        self, connection: PipelinedConnection, keys: Keys, last: asyncio.Future[Any]
    ) -> None:
        consume(last)
        if connection.holds_back:  # until those are answered that were written since
            last.get_loop().call_later(_SOON, self._answered, connection, keys, last)
            return
        self._under_way.remove(keys)
        self._hold()
        self._backlog.go_on()

    def _hold(self) -> None:
        backlog = self._backlog
        backlog.under_way = set().union(*self._under_way)
        backlog.keys |= backlog.under_way
