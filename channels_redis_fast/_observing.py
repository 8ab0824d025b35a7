"""What operators ask of a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._base import BaseRedisLayer
from .client.pinging import ping_blocking, ping_shards
from .types import Ping


class Observing(BaseRedisLayer):
    """What operators ask of either layer."""

    async def ping(self) -> list[Ping]:
        """What each server of `hosts` answers, within `command_timeout`.

        Of a Cluster each node that has slots. Raises nothing: a host that can't be
        reached has an `error`.
        """
        local = self._loops.engine_for_call()
        if local is None:
            found = ping_blocking(self._blocking.shards, self.command_timeout)
        else:
            found = await ping_shards(local.shards, self.command_timeout)
        up = self._subscribers_up()
        return [ping._replace(subscriber=up.get(ping.host)) for ping in found]

    def _subscribers_up(self) -> dict[str, bool]:
        """Whether the subscriptions of all event loops at a server are up."""
        return {}


class SyncObserving:
    """The same for callers without an event loop."""

    _run: Callable[..., Any]

    def ping(self) -> list[Ping]:
        """What each server of `hosts` answers, within `command_timeout`."""
        found: list[Ping] = self._run("ping")
        return found
