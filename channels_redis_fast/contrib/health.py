"""A check for django-health-check: `pip install channels_redis_fast[health]`.

For readiness. Liveness must not ask Redis: else a restart of it restarts the fleet.
"""

from __future__ import annotations

import dataclasses

from channels.layers import get_channel_layer

from ..types import Ping

try:
    from health_check.base import HealthCheck
    from health_check.exceptions import ServiceUnavailable
except ImportError as _error:
    raise ImportError(
        "this needs django-health-check 4 or later: "
        "pip install channels_redis_fast[health]"
    ) from _error


@dataclasses.dataclass
class ChannelLayerHealthCheck(HealthCheck):  # type: ignore[misc]
    """Well when each server of a layer answers `ping`, and subscriptions are up.

    `alias` is a key of CHANNEL_LAYERS, of a layer of this package.
    """

    alias: str = "default"

    async def run(self) -> None:
        """Raises `ServiceUnavailable`, naming the servers without credentials."""
        layer = get_channel_layer(self.alias)
        if not hasattr(layer, "ping"):
            text = f"CHANNEL_LAYERS[{self.alias!r}] is no layer of channels_redis_fast"
            raise ServiceUnavailable(text)
        problems = [_problem(ping) for ping in await layer.ping() if not ping.is_well]
        if problems:
            raise ServiceUnavailable("; ".join(problems))


def _problem(ping: Ping) -> str:
    return f"{ping.host}: {ping.error or 'subscriptions are lost for now'}"
