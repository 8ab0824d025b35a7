"""For INSTALLED_APPS: Django's system checks, and the command `channel_layer`.

The layers need neither.
"""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

from .checks.deployment import check_deployment
from .checks.layers import check_layers

TAG = "channels"


class ChannelsRedisFastConfig(AppConfig):  # type: ignore[misc]
    """The app; it has no models."""

    name = "channels_redis_fast"
    verbose_name = "Channel layers"

    def ready(self) -> None:
        """Registers the checks, none of which asks a server."""
        register(check_layers, TAG)
        register(check_deployment, TAG, deploy=True)
