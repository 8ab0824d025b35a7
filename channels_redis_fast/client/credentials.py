"""Credential providers: asked by awaited and blocking callers, and listened to."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import weakref
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from redis import credentials

from .._logs import warn
from .masking import Masked
from .timeouts import timeout

try:
    from redis.credentials import StreamingCredentialProvider
except ImportError:  # before redis-py 5.3 there was nobody to listen to

    class StreamingCredentialProvider:  # type: ignore[no-redef]
        """Stands for what no provider is."""


# Has a connection send a command, AUTH; called in any thread.
Authenticate = Callable[[Any, Masked[tuple[Any, ...]]], None]


class Credentials(credentials.CredentialProvider):
    """Asks a provider of the application's, however it wants to be asked.

    redis-py has asynchronous connections call `get_credentials_async` (before 5.1 they
    don't) and blocking ones `get_credentials`, of which a provider may have one only.
    """

    def __init__(self, provider: Any, timeout: float) -> None:
        self._provider = provider
        self._timeout = timeout

    def get_credentials(self) -> Any:
        """The user and the password, or the password alone; may block."""
        asks = self._has("get_credentials_async")
        if self._has("get_credentials"):
            try:
                return self._provider.get_credentials()
            except NotImplementedError:
                if not asks:
                    raise
        return _run_to_its_end(self._provider.get_credentials_async, self._timeout)

    async def get_credentials_async(self) -> Any:
        """The same."""
        if self._has("get_credentials_async"):
            return await self._provider.get_credentials_async()
        return self._provider.get_credentials()

    def _has(self, method: str) -> bool:
        """Whether the provider has a method that isn't the base class's."""
        found = getattr(type(self._provider), method, None)
        theirs = getattr(credentials.CredentialProvider, method, None)
        return found is not None and found is not theirs


class Tokens:
    """Tells all connections of this process when a streaming provider has a new token.

    Providers have room for one listener, so there is one for each provider. Connections
    are held weakly; there is no lock, which a fork could leave locked.
    """

    def __init__(self, provider: Any) -> None:
        self.version = 0
        self.command: Masked[tuple[Any, ...]] = Masked(())
        self._connections: dict[int, tuple[weakref.ref[Any], Authenticate]] = {}
        provider.on_next(self._next)
        provider.on_error(self._failed)

    def add(self, connection: Any, authenticate: Authenticate, version: int) -> None:
        """Keeps a connection authenticated that was opened when `version` was known."""
        number = id(connection)
        forget = self._connections.pop
        reference = weakref.ref(connection, lambda _: forget(number, None))
        self._connections[number] = reference, authenticate
        if version != self.version:  # a token came while it was opened
            authenticate(connection, self.command)

    def _next(self, token: Any) -> _Done:
        user, password = token.try_get("oid"), token.get_value()
        self.command = Masked((b"AUTH", *((user,) if user else ()), password))
        self.version += 1
        for reference, authenticate in list(self._connections.values()):
            if (connection := reference()) is not None:
                authenticate(connection, self.command)
        return _Done()

    def _failed(self, error: Any) -> _Done:
        warn("no new credentials: %s: %s", type(error).__name__, error)
        return _Done()


class _Done:
    """The result of a listener, which providers may await or not."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


def shared_tokens(provider: Any) -> Tokens | None:
    """What tells of a provider's tokens; None for one that doesn't stream."""
    if not isinstance(provider, StreamingCredentialProvider):
        return None
    if (tokens := _tokens.get(provider)) is None:
        tokens = _tokens[provider] = Tokens(provider)
    return tokens


_tokens: weakref.WeakKeyDictionary[Any, Tokens] = weakref.WeakKeyDictionary()


def _run_to_its_end(ask: Callable[[], Awaitable[Any]], seconds: float) -> Any:
    """The result of a coroutine function for a caller that blocks."""

    async def limited() -> Any:
        async with timeout(seconds):
            return await ask()

    if asyncio._get_running_loop() is None:
        return asyncio.run(limited())
    # In async_to_sync, which runs the call in an event loop: a thread can have another.
    executor = concurrent.futures.ThreadPoolExecutor(1)
    try:
        return executor.submit(asyncio.run, limited()).result()
    finally:
        with contextlib.suppress(RuntimeError):
            executor.shutdown(wait=False)
