"""Formats of messages, and the registry that applications add their own to.

Classes written for `channels_redis.serializers` work here as they are.
"""

from .exceptions import SerializerDoesNotExist
from .wire.formats import (
    BaseMessageSerializer,
    JSONSerializer,
    MissingSerializer,
    MsgPackSerializer,
    SerializersRegistry,
    registry,
)

__all__ = [
    "BaseMessageSerializer",
    "JSONSerializer",
    "MissingSerializer",
    "MsgPackSerializer",
    "SerializerDoesNotExist",
    "SerializersRegistry",
    "registry",
]
