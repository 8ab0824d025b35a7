"""Who listens to a name: one layer in one event loop, seen from any thread."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol, TypeGuard

from redis import exceptions as errors


class Owner(Protocol):
    """Where names are subscribed: one layer in one event loop."""

    loop: asyncio.AbstractEventLoop
    is_open: bool
    # Names that it need not listen to any more; while its loop stands still, told so.
    taken: set[bytes]

    async def subscribe(self, name: bytes) -> None:
        """Returns when Redis has confirmed a name."""

    def settle(self, names: list[bytes]) -> None:
        """Subscribes names in the background, however long it takes."""

    def forget(self, name: bytes) -> None:
        """Unsubscribes a name, unless it is wanted here."""

    def catch_up(self) -> None:
        """Forgets the names that were taken, when what came to them was read."""


def is_running(owner: Owner | None) -> TypeGuard[Owner]:
    """Whether there is an owner that listens."""
    return owner is not None and owner.is_open and owner.loop.is_running()


def tell_forget(owner: Owner | None, name: bytes) -> None:
    """Has an owner, if there is one, forget a name; soon, if it is another loop's."""
    if owner is None or not owner.is_open:
        return
    if owner.loop is asyncio._get_running_loop():
        owner.forget(name)
        return
    call: tuple[Any, ...] | None = (owner.forget, name)
    if not owner.loop.is_running():  # calls would pile up in it
        call = None if owner.taken else (owner.catch_up,)
        owner.taken.add(name)
    if call is not None:
        with contextlib.suppress(RuntimeError):  # closed: it has forgotten
            owner.loop.call_soon_threadsafe(*call)


async def confirm(owner: Owner, name: bytes, seconds: float) -> None:
    """Returns when an owner's subscription is confirmed.

    Raises what its `subscribe` does, and redis-py's `ConnectionError` if its loop is
    another one, and says nothing for so many seconds.
    """
    if owner.loop is asyncio.get_running_loop():
        await owner.subscribe(name)
        return
    work = owner.subscribe(name)
    try:
        there = asyncio.run_coroutine_threadsafe(work, owner.loop)
    except RuntimeError as error:
        work.close()
        raise errors.ConnectionError(f"the loop of {name!r} was closed") from error
    answer: asyncio.Future[Any] = asyncio.wrap_future(there)
    try:
        await asyncio.wait([answer], timeout=seconds)
    finally:
        answer.cancel()
    if answer.cancelled():
        raise errors.ConnectionError(f"the loop of {name!r} does not answer")
    await answer
