"""What is measured: this package's layers, what else users have, and the limits."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgpack

from blocking_limits import BlockingCore, BlockingPubSub
from limits import LimitCore, LimitPubSub
from queues import Queues
from support import programs

OURS = "channels_redis_fast"
KEY = "a key of at least 32 bytes, for Fernet or AES-GCM"
TEXT = "hello, world " * 8


@dataclass(frozen=True)
class Setting:
    """Where the servers are, and what all contenders of one case have in common."""

    redis: tuple[str, int] = ("", 0)
    nats: tuple[str, int] | None = None
    capacity: int = 100  # messages
    size: int = len(TEXT)  # characters of the message's text
    encrypted: bool = False

    @property
    def url(self) -> str:
        """The server's URI."""
        return "redis://{}:{}".format(*self.redis)


async def close_layer(layer: Any) -> None:
    """Closes what a contender keeps open; each layer has another name for it."""
    for name in ("close_pools", "close", "flush"):
        if close := getattr(layer, name, None):
            await close()
            return


@dataclass(frozen=True)
class Contender:
    """One thing to measure. `make` builds its layer in the process that uses it.

    `kind` is "core" or "pubsub", what it is compared as; "" for the rest.
    """

    name: str
    kind: str
    package: str
    make: Callable[[Setting], Any]
    one_process: bool = False
    blocking: bool = False  # calls `layer.sync`, where called without a loop
    follows: bool = False  # its channels join groups by `group_join`
    program: str = ""  # its server, if that isn't Redis

    @property
    def is_ours(self) -> bool:
        """Whether it is a layer of this package."""
        return self.package == OURS and not self.is_limit

    @property
    def is_limit(self) -> bool:
        """Whether it has no layer."""
        return self.name.startswith("limit")

    def missing(self) -> str | None:
        """Why it can't be measured here, or None."""
        try:
            if self.package:
                version(self.package)
            self.make(Setting(("127.0.0.1", 1), ("127.0.0.1", 1)))
        except PackageNotFoundError:
            return f"{self.package} is not installed"
        except (ImportError, TypeError) as error:
            return f"{self.name}: {error}"
        if self.program and programs.find(self.program) is None:
            return f"needs Debian's package {self.program}, which is not installed"
        return None


class Texts:
    """Messages as applications send them, with a number."""

    def __init__(self, size: int) -> None:
        text = (TEXT * (size // len(TEXT) + 1))[:size]
        self._base = {"type": "chat.message", "text": text, "user": "someone"}

    def message(self, number: int) -> dict[str, Any]:
        """A message with this number."""
        return {**self._base, "n": number}

    def number(self, message: dict[str, Any]) -> int:
        """The number of a message that was received."""
        found: int = message["n"]
        return found

    def packed_size(self) -> int:
        """How many bytes a message takes."""
        return len(msgpack.packb(self.message(1 << 30)))


def _redis(path: str, setting: Setting, host: Any = None, **options: Any) -> Any:
    """A layer with the options that those for Redis share."""
    module, _, name = path.rpartition(".")
    if setting.encrypted:
        options["symmetric_encryption_keys"] = [KEY]
    return getattr(importlib.import_module(module), name)(
        hosts=[host or setting.url], capacity=setting.capacity, **options
    )


def _ours(kind: str, **options: Any) -> Callable[[Setting], Any]:
    name = {"core": "RedisChannelLayer", "pubsub": "RedisPubSubChannelLayer"}[kind]
    return functools.partial(_redis, f"{OURS}.{kind}.{name}", **options)


def _theirs(path: str, scheme: str = "redis") -> Callable[[Setting], Any]:
    """An incumbent as it survives: redis-py 8 would end its idle receivers after
    5 s, and refuse more than 100 senders at a time."""

    def make(setting: Setting) -> Any:
        address = setting.url.replace("redis", scheme, 1)
        host = {"address": address, "socket_timeout": None, "max_connections": 10_000}
        return _redis(path, setting, host)

    return make


def _nats(setting: Setting) -> Any:
    layer = importlib.import_module("channels_nats").NatsChannelLayer
    host, port = setting.nats or ("", 0)
    return layer(servers=f"nats://{host}:{port}", capacity=setting.capacity)


def _memory(setting: Setting) -> Any:
    layer = importlib.import_module("channels.layers").InMemoryChannelLayer
    return layer(capacity=setting.capacity)


def _limit(cls: Any) -> Callable[[Setting], Any]:
    def make(setting: Setting) -> Any:
        size = Texts(setting.size).packed_size()
        return cls(*setting.redis, setting.capacity, size)

    return make


def _ours_of(name: str, kind: str, **options: Any) -> Contender:
    return Contender(name, kind, OURS, _ours(kind, **options))


def _with_history(kind: str) -> Contender:
    make = _ours(kind, history={"*": (100, 300)})
    return Contender(f"{kind}-history", kind, OURS, make, follows=True)


CONTENDERS = {
    one.name: one
    for one in (
        _ours_of("core", "core"),
        _ours_of("core-unconfirmed", "core", confirm_sends=False),
        _ours_of("core-prefetch", "core", prefetch=100),
        _ours_of("core-both", "core", prefetch=100, confirm_sends=False),
        _ours_of("core-aes-gcm", "core", encryption="aes-gcm"),
        _with_history("core"),
        Contender("core-sync", "core", OURS, _ours("core"), blocking=True),
        _ours_of("pubsub", "pubsub"),
        _ours_of("pubsub-unconfirmed", "pubsub", confirm_sends=False),
        _ours_of("pubsub-prefetch", "pubsub", prefetch=100),
        _ours_of("pubsub-both", "pubsub", prefetch=100, confirm_sends=False),
        _ours_of("pubsub-aes-gcm", "pubsub", encryption="aes-gcm"),
        _with_history("pubsub"),
        Contender("pubsub-sync", "pubsub", OURS, _ours("pubsub"), blocking=True),
        Contender(
            *("channels_redis-core", "core", "channels_redis"),
            _theirs("channels_redis.core.RedisChannelLayer"),
        ),
        Contender(
            *("channels_redis-pubsub", "pubsub", "channels_redis"),
            _theirs("channels_redis.pubsub.RedisPubSubChannelLayer"),
        ),
        Contender(
            *("channels_valkey-core", "core", "channels_valkey"),
            _theirs("channels_valkey.core.ValkeyChannelLayer", "valkey"),
        ),
        Contender(
            *("channels_valkey-pubsub", "pubsub", "channels_valkey"),
            _theirs("channels_valkey.pubsub.ValkeyPubSubChannelLayer", "valkey"),
        ),
        Contender(
            *("channels_nats", "", "channels_nats", _nats),
            program="nats-server",
        ),
        Contender("in-memory", "", "channels", _memory, one_process=True),
        Contender("limit-core", "core", OURS, _limit(LimitCore)),
        Contender("limit-pubsub", "pubsub", OURS, _limit(LimitPubSub)),
        Contender("limit-core-sync", "core", OURS, _limit(BlockingCore)),
        Contender("limit-pubsub-sync", "pubsub", OURS, _limit(BlockingPubSub)),
        Contender("limit-queue", "", "", lambda _: Queues(), one_process=True),
    )
}
