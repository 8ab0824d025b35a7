"""The configured keys, and the ciphers for them from `cryptography`, if installed."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from channels_redis_fast.exceptions import InvalidSetting

NAME = "symmetric_encryption_keys"
MISSING = (
    "encryption needs the package cryptography: "
    "pip install channels_redis_fast[cryptography]"
)


def key_digests(keys: Iterable[str | bytes]) -> list[bytes]:
    """SHA-256 of each key; raises InvalidSetting, which doesn't show any of them."""
    if isinstance(keys, (str, bytes, bytearray)):
        raise InvalidSetting(f"{NAME} must be a list of keys, not one key")
    try:
        found = list(keys)
    except TypeError:
        kind = type(keys).__name__
        raise InvalidSetting(f"{NAME} must be a list of keys, not {kind}") from None
    if not found:
        raise InvalidSetting(f"{NAME} is empty")
    return [key_digest(key, f"{NAME}[{i}]") for i, key in enumerate(found)]


def key_digest(key: str | bytes, name: str = "a key") -> bytes:
    """SHA-256 of one key, called `name` in errors."""
    if not isinstance(key, (str, bytes)):
        raise InvalidSetting(f"{name} must be str or bytes, not {type(key).__name__}")
    if not key:
        raise InvalidSetting(f"{name} is empty")
    if isinstance(key, str):
        try:
            key = key.encode()
        except UnicodeEncodeError:
            raise InvalidSetting(f"{name} can't be encoded as UTF-8") from None
    return hashlib.sha256(key).digest()


def ciphers() -> ModuleType:
    """The module with Cipher, algorithms and modes."""
    return _imported("cryptography.hazmat.primitives.ciphers")


def fernet() -> ModuleType:
    """The module with Fernet and MultiFernet."""
    return _imported("cryptography.fernet")


def aes_gcm() -> tuple[Any, type[Exception]]:
    """The class AESGCM, and what it raises for what was not sealed with its key."""
    aead = _imported("cryptography.hazmat.primitives.ciphers.aead")
    return aead.AESGCM, _imported("cryptography.exceptions").InvalidTag


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidSetting(MISSING) from error
