"""Which groups there are, as far as Redis knows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from redis import exceptions as errors

from .._base import BaseRedisLayer
from ..commands.errors import value_of
from ..pubsub import RedisPubSubChannelLayer
from .keys import scanned
from .server import Server

_NAMES, _COUNTS = "CHANNELS", "NUMSUB"  # with SHARD in front, of sharded Pub/Sub


def groups(layer: BaseRedisLayer, pattern: str = "*") -> Counter[str]:
    """The groups whose names match a glob, and how many members each has.

    Of a Pub/Sub layer, which stores none: how many processes have some. Raises
    redis-py's errors.
    """
    found = Counter[str]()
    is_pubsub = isinstance(layer, RedisPubSubChannelLayer)
    begin = f"{layer.prefix}{'__group__' if is_pubsub else ':group:'}"
    # The escaped prefix, and what follows it in names of groups.
    escaped = layer._operations.flush_pattern().removesuffix(b"*").decode()
    glob = f"{escaped}{begin.removeprefix(layer.prefix)}{pattern}"
    for server, is_cluster in _servers(layer):
        if is_pubsub:
            found.update(_subscribed(server, glob, is_cluster))
        else:
            found.update(_stored(server, glob))
    return Counter({name.removeprefix(begin): n for name, n in found.items()})


def _servers(layer: BaseRedisLayer) -> Iterator[tuple[Server, bool]]:
    for shard in layer._blocking.shards:
        for pool in shard.primaries(time.monotonic() + layer.command_timeout):
            yield Server(pool, layer.command_timeout), shard.is_cluster


def _stored(server: Server, glob: str) -> dict[str, int]:
    found = chain.from_iterable(scanned(server, glob.encode()))
    return {key: server.ask("ZCARD", key) for key in found}


def _subscribed(server: Server, glob: str, is_cluster: bool) -> Counter[str]:
    found = Counter[str]()
    for kind in ("", "SHARD") if is_cluster else ("",):
        names = server.try_("PUBSUB", kind + _NAMES, glob)
        if kind and isinstance(names, errors.ResponseError):
            continue  # a server before Redis 7
        if value_of(names):
            counts = server.ask("PUBSUB", kind + _COUNTS, *names)
            for name, count in zip(counts[::2], counts[1::2], strict=True):
                found[name.decode("utf-8", "replace")] += count
    return found
