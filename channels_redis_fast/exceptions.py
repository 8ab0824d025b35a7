"""What the package raises, besides what redis-py and Channels raise themselves."""

from __future__ import annotations


class InvalidName(TypeError):
    """A channel or group name that the Channels specification does not allow."""


class ForeignChannel(TypeError, AssertionError):
    """A process-local channel that another process made is asked for here."""


class InvalidMessage(TypeError, AssertionError):
    """A message that is no dict, holds a reserved key, or can't be serialised."""


class InvalidSetting(ValueError):
    """A value in CONFIG that the layer can't work with."""


class InvalidPrefix(InvalidSetting, AssertionError):
    """A layer prefix that is not a str."""


class UnreadableMessage(ValueError):
    """Bytes from Redis that give no message: malformed, wrong key or too old."""


class InvalidSerializer(TypeError, AssertionError):
    """What is registered as a serializer is no class that can be one."""


class SerializerDoesNotExist(KeyError):
    """The requested serializer was not found."""


class NotSupported(RuntimeError):
    """A method that this kind of layer has no means for; the text says which has."""
