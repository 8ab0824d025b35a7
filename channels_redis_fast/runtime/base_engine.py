"""What runs a call's commands, in an event loop or in the calling thread."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from ..client.host import Host
from ..client.topology import Topology
from ..commands.bulk import GroupSendMany, Outcome, SendMany
from ..commands.history import Append
from ..commands.operations import Request
from .appends import Appended, Appends, append_now


class Servers(Protocol):
    """The servers of one entry of `hosts`."""

    @property
    def host(self) -> Host:
        """What says how to reach them."""

    @property
    def topology(self) -> Topology | None:
        """Which of them has a key, in a Cluster; None: there is only one."""


class Engine:
    """Runs requests; those that send messages have a reply, unless a subclass says so.

    Calls began at `began` (`time.monotonic()`; 0: now), from which their deadlines
    count. Redis-py's errors are raised, and those that Redis answers.
    """

    shards: Sequence[Servers]  # of all hosts
    appends: Appends | None = None  # where several go together

    def run(self, request: Request, began: float = 0.0) -> Awaitable[Any]:
        """The reply to a request."""
        raise NotImplementedError

    def run_all(
        self, requests: list[Request], began: float = 0.0
    ) -> Awaitable[list[Any]]:
        """The replies, in order, to requests written together; errors as values."""
        raise NotImplementedError

    async def unlink(self, pattern: bytes) -> None:
        """Deletes the keys that match a glob pattern."""
        raise NotImplementedError

    # What sends messages. A reply is None where nobody waits for it

    def send(self, request: Request, began: float = 0.0) -> Awaitable[Any]:
        """Adds a message to a channel's key."""
        return self.run(request, began)

    def publish(self, request: Request, began: float = 0.0) -> Awaitable[Any]:
        """Publishes a message."""
        return self.run(request, began)

    def ask_members(
        self, request: Request, body: Any, began: float, excluded: frozenset[bytes]
    ) -> Awaitable[list[bytes] | None]:
        """Asks for the members of a group, to whom the caller is to send a body.

        Not to the `excluded`, which are among them.
        """
        return self.run(request, began)

    def append(
        self, append: Append, verb: bytes, began: float = 0.0
    ) -> Awaitable[Appended | None]:
        """Appends a message to a group's history, and publishes it by a command."""
        return self._append(append, verb, None, began)

    def append_and_ask(
        self, append: Append, ask: Request, began: float = 0.0
    ) -> Awaitable[Appended]:
        """Appends a message that isn't published, and asks something of its group."""
        return self._append(append, b"", ask, began)

    def _append(
        self, append: Append, verb: bytes, ask: Request | None, began: float
    ) -> Awaitable[Appended]:
        if self.appends is not None:
            return self.appends.add(append, verb, ask, began)
        return append_now(self.run_all, append, verb, ask, began)

    def send_many(
        self, work: SendMany, began: float = 0.0, publications: Sequence[Request] = ()
    ) -> Awaitable[list[Outcome]]:
        """Sends many messages."""
        return work.run(self.run_all, began, publications)

    def group_send_many(self, work: GroupSendMany) -> Awaitable[list[Outcome]]:
        """Sends many messages to groups."""
        return work.run(self.run_all)

    async def flush_sends(self) -> None:
        """Returns when all that was sent is answered."""
