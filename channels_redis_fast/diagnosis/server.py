"""One server of a layer, and what it says about itself."""

from __future__ import annotations

import time
from typing import Any

from redis import exceptions as errors
from redis.connection import parse_url

from ..client.blocking_pool import BlockingPool
from ..client.host import Host
from ..commands.errors import value_of
from .finding import SOMEBODY


class Server:
    """Asks one server; each question has so many seconds."""

    def __init__(self, pool: BlockingPool, seconds: float) -> None:
        self.name = name_of(pool.host)
        self._pool = pool
        self._seconds = seconds

    def ask(self, *words: bytes | str) -> Any:
        """The reply to a command; raises redis-py's errors."""
        return value_of(self.try_(*words))

    def try_(self, *words: bytes | str) -> Any:
        """The same; an error is a value."""
        return self._pool.ask(words, self._deadline)

    def try_alone(self, *words: bytes | str) -> Any:
        """The same on a connection that is closed then, as its state is another."""
        try:
            pipe = self._pool.acquire(self._deadline)
        except errors.RedisError as error:
            return error
        try:
            pipe.write([words], self._deadline)
            return pipe.read(self._deadline)
        except errors.RedisError as error:
            return error
        finally:
            pipe.close()

    def info(self) -> dict[str, str]:
        """All facts of INFO by their names."""
        lines = self.ask("INFO").decode("utf-8", "replace").splitlines()
        facts = (line.partition(":") for line in lines if not line.startswith("#"))
        return {name: value for name, _, value in facts}

    def setting(self, name: str) -> str | None:
        """A setting, by CONFIG GET; None: the server has none of this name."""
        reply = self.ask("CONFIG", "GET", name)
        return reply[1].decode() if reply else None

    def clock(self) -> float:
        """How far (seconds) its clock is ahead of ours."""
        before = time.time()
        seconds, microseconds = self.ask("TIME")
        return int(seconds) + int(microseconds) / 1e6 - (before + time.time()) / 2

    @property
    def user(self) -> str:
        """The name of its user, if the server tells it, or the settings."""
        reply = self.try_("ACL", "WHOAMI")
        return reply.decode() if isinstance(reply, bytes) else user_of(self._pool.host)

    @property
    def _deadline(self) -> float:
        return time.monotonic() + self._seconds


def user_of(host: Host) -> str:
    """The user that an entry of `hosts` names; a credential provider isn't asked."""
    settings = host.settings
    if settings.get("credential_provider") is not None:
        return SOMEBODY
    if "address" in settings:
        settings |= parse_url(settings["address"])
    return settings.get("username") or "default"


def name_of(host: Host) -> str:
    """As in `hosts`; a primary that Sentinels name by where it is now."""
    name = "{}:{}".format(*host.primary) if host.primary else str(host)
    return f"rediss://{name}" if host.is_tls and "://" not in name else name
