"""What would be wrong in production: `manage.py check --deploy`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning

from .._base import BaseRedisLayer
from .configured import Configured, configured_layers, our_layers
from .places import address_of

_IN_MEMORY = "channels.layers.InMemoryChannelLayer"
_INSECURE = "django-insecure-"  # what `startproject` writes
_SHORTEST_KEY = 32  # bytes


def check_deployment(**about: Any) -> list[CheckMessage]:
    """W101 and W102: docs/operations.md has them."""
    found: list[CheckMessage] = []
    if not settings.DEBUG:
        for entry in configured_layers():
            found += _left_at_defaults(entry)
    for one, layer in our_layers():
        found += _weak_keys(one)
        found += _readable_by_all(one, layer)
    return found


def _left_at_defaults(one: Configured) -> Iterator[CheckMessage]:
    text, hint = (
        "",
        "Name the production server in hosts, as redis://redis.internal:6379.",
    )
    if one.backend == _IN_MEMORY:
        text = "is in the memory of one process, and reaches no other one"
        hint = "Use channels_redis_fast.core.RedisChannelLayer."
    elif one.layer is not None and not one.config.get("hosts"):
        text = "names no hosts, and so means a Redis on this very machine"
    if text:
        id_ = "channels_redis_fast.W101"
        yield Warning(f"{one.name} {text}.", hint=hint, id=id_)


def _weak_keys(one: Configured) -> Iterator[CheckMessage]:
    for number, key in enumerate(one.config.get("symmetric_encryption_keys") or ()):
        reason = _weakness(key if isinstance(key, bytes) else str(key).encode())
        if reason:
            yield Warning(
                f"{one.name}: symmetric_encryption_keys[{number}] {reason}.",
                hint='python -c "import secrets; print(secrets.token_urlsafe(32))" '
                "makes a good one; keep it in the environment.",
                id="channels_redis_fast.W102",
            )


def _weakness(key: bytes) -> str | None:
    if key.startswith(_INSECURE.encode()):
        return f"begins with {_INSECURE}, which marks keys that are in repositories"
    if len(key) < _SHORTEST_KEY:
        return f"has {len(key)} bytes, of {_SHORTEST_KEY} that it should have"
    return None


def _readable_by_all(one: Configured, layer: BaseRedisLayer) -> Iterator[CheckMessage]:
    if one.config.get("symmetric_encryption_keys"):
        return
    for host, settings_ in zip(layer._hosts, layer.hosts, strict=True):
        if _is_public(address_of(settings_)) and not host.is_tls:
            yield Warning(
                f"{one.name}: {host} is a public address, and messages go there in "
                "plain text.",
                hint="Use rediss://, symmetric_encryption_keys, or a private network.",
                id="channels_redis_fast.W102",
            )


def _is_public(address: str | None) -> bool:
    """Whether it is an IP address of the Internet; a name isn't looked up."""
    try:
        return address is not None and ipaddress.ip_address(address).is_global
    except ValueError:
        return False
