"""Messages to bytes and back, in the formats of a registry."""

from __future__ import annotations

import abc
import base64
import difflib
import json
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

import msgpack

from .._masking import Masked, without_frames
from ..exceptions import (
    InvalidMessage,
    InvalidSerializer,
    InvalidSetting,
    SerializerDoesNotExist,
    UnreadableMessage,
)
from ._aead import AesGcmFrames
from ._framing import FernetFrames, UniqueBytes
from .encryption_keys import fernet, key_digest

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

Keys: TypeAlias = Sequence[str | bytes]
Encryption: TypeAlias = Literal["fernet", "aes-gcm"]

ENCRYPTIONS = ("fernet", "aes-gcm")
GRACE = 10  # seconds that an encrypted message may outlive `expiry`


class BaseMessageSerializer(abc.ABC):
    """Puts unique bytes and encryption around what a subclass makes of a message.

    `unique` makes the bytes in front. `crypter` (Fernet) and `aead` (AES-GCM) are
    None without keys; `encryption` says which of them seals. Both open, so that
    the processes of a layer can change from one to the other at their own pace.
    """

    aead: AesGcmFrames | None = None
    crypter: Any = None  # a FernetFrames, unless a subclass makes its own
    encryption: Encryption = "fernet"

    def __init__(
        self,
        symmetric_encryption_keys: Keys | None = None,
        random_prefix_length: int = 0,
        expiry: float | None = None,
        *,
        encryption: Encryption = "fernet",
    ) -> None:
        if encryption not in ENCRYPTIONS:
            raise InvalidSetting(
                f"encryption must be one of {ENCRYPTIONS}, not {encryption!r}"
            )
        self.encryption = encryption
        self.random_prefix_length = random_prefix_length
        self.unique = UniqueBytes(random_prefix_length)
        self.expiry = expiry
        self._setup_encryption(symmetric_encryption_keys)

    def _setup_encryption(self, symmetric_encryption_keys: Keys | None) -> None:
        if not symmetric_encryption_keys:
            return
        self.aead = AesGcmFrames(symmetric_encryption_keys)
        if type(self).make_fernet is BaseMessageSerializer.make_fernet:
            self.crypter = FernetFrames(symmetric_encryption_keys)
        else:
            made = [self.make_fernet(key) for key in symmetric_encryption_keys]
            self.crypter = fernet().MultiFernet(made)

    def make_fernet(self, key: str | bytes) -> Fernet:
        """A Fernet of `cryptography` for one key; a subclass may make another."""
        made: Fernet = fernet().Fernet(base64.urlsafe_b64encode(key_digest(key)))
        return made

    @abc.abstractmethod
    def as_bytes(self, message: Any, *args: Any, **kwargs: Any) -> bytes:
        """The message in this format."""

    @abc.abstractmethod
    def from_bytes(self, message: bytes, *args: Any, **kwargs: Any) -> Any:
        """The message that `as_bytes` was given."""

    def serialize(self, message: Any, context: bytes = b"") -> bytes:
        """The bytes to send: `seal` around `as_bytes`."""
        return self.seal(self.as_bytes(message), context)

    def deserialize(self, message: bytes, context: bytes = b"") -> Any:
        """The message in received bytes; raises UnreadableMessage for all others."""
        try:
            found = self.from_bytes(self.open(message, context))
        except (UnreadableMessage, MemoryError):
            raise
        except Exception as error:  # of whatever class `from_bytes` raises
            reason = f"{type(error).__name__}: {error}"
            raise UnreadableMessage(f"{reason}: {reprlib.repr(message)}") from error
        if not isinstance(found, Mapping):
            raise UnreadableMessage(f"not a message: {reprlib.repr(found)}")
        return found

    def seal(self, payload: bytes, context: bytes = b"") -> bytes:
        """Unique bytes and the payload, encrypted when there are keys.

        AES-GCM binds it to `context`, the name of the Redis key that it goes to.
        """
        if self.encryption == "aes-gcm" and self.aead:
            payload = self.aead.seal(payload, context)
        elif self.crypter:
            payload = self.crypter.encrypt(payload)
        return self.unique.next() + payload if self.random_prefix_length else payload

    def open(self, sealed: bytes, context: bytes = b"") -> bytes:
        """The payload that `seal` was given; raises UnreadableMessage for others."""
        payload = sealed[self.random_prefix_length :]
        ttl = None if self.expiry is None else self.expiry + GRACE
        if self.aead and self.aead.looks_like(payload):
            return self.aead.open(payload, context, ttl)
        opened: bytes = self.crypter.decrypt(payload, ttl) if self.crypter else payload
        return opened


class MissingSerializer(BaseMessageSerializer):
    """Stands for a format whose package is not installed."""

    exception: Exception | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> MissingSerializer:
        raise cls.exception or NotImplementedError(cls.__name__)


def _in_format(dump: Callable[..., Any], message: Any, *args: Any, **kw: Any) -> Any:
    try:
        return dump(message, *args, **kw)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidMessage(f"{error}: {reprlib.repr(message)}") from error


class JSONSerializer(BaseMessageSerializer):
    """JSON in UTF-8, as `json.dumps` writes it."""

    def as_bytes(self, message: Any, *args: Any, **kwargs: Any) -> bytes:
        text: str = _in_format(json.dumps, message, *args, **kwargs)
        return text.encode()

    from_bytes = staticmethod(json.loads)  # type: ignore[assignment]


class MsgPackSerializer(BaseMessageSerializer):
    """msgpack, as `msgpack.packb` writes it."""

    @staticmethod
    def as_bytes(message: Any, *args: Any, **kwargs: Any) -> bytes:
        packed: bytes = _in_format(msgpack.packb, message, *args, **kwargs)
        return packed

    from_bytes = staticmethod(msgpack.unpackb)


class SerializersRegistry:
    """Formats by name, as CONFIG's `serializer_format` chooses them."""

    def __init__(self) -> None:
        self._registry: dict[str, type[Any]] = {}

    def register_serializer(self, format: str, serializer_class: type[Any]) -> None:
        """Add a format, or replace it.

        Its class has `serialize` and `deserialize`, or is a subclass of
        BaseMessageSerializer; raises InvalidSerializer for another.
        """
        if not isinstance(serializer_class, type) or not (
            hasattr(serializer_class, "serialize")
            and hasattr(serializer_class, "deserialize")
        ):
            raise InvalidSerializer(
                "a serializer must be a class with the methods serialize and "
                f"deserialize, not {serializer_class!r}"
            )
        self._registry[format] = serializer_class

    def get_serializer(self, format: str, *args: Any, **kwargs: Any) -> Any:
        """An instance of the class of a format, made with the other arguments."""
        if format not in self._registry:
            self._unknown(format)
        return self._registry[format](*args, **kwargs)

    def _unknown(self, format: str) -> NoReturn:
        known = [str(name) for name in self._registry]
        close = difflib.get_close_matches(str(format), known, n=1, cutoff=0.0)
        hint = f", the closest of {sorted(known)} is {close[0]!r}" if close else ""
        raise SerializerDoesNotExist(f"no serializer for {format!r}{hint}")


def serializer_of(format: str, keys: Masked[Any], **options: Any) -> Any:
    """What the registry gives for a format, made with keys and other options."""
    try:
        return registry.get_serializer(
            format, symmetric_encryption_keys=keys.value, **options
        )
    except Exception as error:
        if not keys.value:
            raise
        raise without_frames(error) from None  # whose variables are keys


registry = SerializersRegistry()
registry.register_serializer("json", JSONSerializer)
registry.register_serializer("msgpack", MsgPackSerializer)
