"""Everything that is looked at, in its order."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

from redis import exceptions as errors

from .._base import BaseRedisLayer
from ..client.blocking_shard import BlockingShard
from ..client.host import Host
from ..client.pinging import ping_blocking
from ..pubsub import RedisPubSubChannelLayer
from ..types import Ping
from .facts import look_at_facts, make_room
from .finding import Finding, Level, grant, unseen
from .keys import look_at_keys
from .rights import look_at_rights
from .server import Server, name_of, user_of
from .settings import look_at_settings
from .trips import make_trips, no_trips

_SLOTS = 16384
_CLOCKS_APART = 2.0  # seconds
_PATIENCE = 10.0  # seconds for a trip by another package's layer
# What a server may say to PING while it answers other questions.
_ANSWERS = ("NOPERM", "MISCONF")
_NOT_ALLOWED = re.compile(r"permissions to run the '([\w|]+)'")


def diagnose(alias: str, layer: Any) -> list[Finding]:
    """All that can be found out about a layer of any package, by asking its servers."""
    if not isinstance(layer, BaseRedisLayer):
        kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
        reason = f"{kind} is another package's, so only its messages are tried"
        trips = asyncio.run(make_trips(layer, alias, _PATIENCE))
        return [unseen("servers", alias, reason), *trips]
    try:
        return list(_diagnose(alias, layer))
    finally:
        layer.sync.close()


def _diagnose(alias: str, layer: BaseRedisLayer) -> Iterator[Finding]:
    are_all_reached = True
    for shard in layer._blocking.shards:
        pings = ping_blocking([shard], layer.command_timeout)
        yield from (_reach(ping, shard.host) for ping in pings)
        reached = _reached(shard, pings, layer.command_timeout)
        are_all_reached &= len(reached) == len(pings)
        for server in reached:
            yield from _look_at(server, shard, layer)
        if shard.is_cluster and reached:
            yield from _guarded("CLUSTER SLOTS", reached[0], _slots(reached))
    if are_all_reached:
        seconds = 2 * layer.command_timeout  # its own errors come first
        yield from asyncio.run(make_trips(layer, alias, seconds))
    else:
        yield no_trips(alias)


def _reach(ping: Ping, host: Host) -> Finding:
    if ping.seconds is not None:
        text = f"answers in {ping.seconds * 1000:.1f} ms"
        return Finding(Level.OK, "reach", ping.host, text)
    error = str(ping.error)
    where = name_of(host) if host.primary else ping.host
    remedy = _remedy_of(error, where, user_of(host))
    return Finding(Level.ERROR, "reach", ping.host, error, remedy)


def _remedy_of(error: str, where: str, user: str) -> str:
    if missing := _NOT_ALLOWED.search(error):
        return grant(where, user, f"+{missing[1]}")
    if "password" in error or "uthenticat" in error:
        return "correct username and password in this entry of hosts"
    if "name it in" in error or "is needed" in error:
        return "as it says"
    if error.startswith("MISCONF"):
        return make_room(where)
    if error.startswith("LOADING"):
        return "wait until it has read its data"
    return "start it; see whether its address is right, and bind and firewalls allow it"


def _reached(
    shard: BlockingShard, pings: Iterable[Ping], seconds: float
) -> list[Server]:
    """Those that answer, if only that they would not be asked that."""
    answering = {p.host for p in pings if not p.error or p.error.startswith(_ANSWERS)}
    if not answering:
        return []
    pools = shard.primaries(time.monotonic() + seconds)
    return [Server(pool, seconds) for pool in pools if str(pool.host) in answering]


def _look_at(
    server: Server, shard: BlockingShard, layer: BaseRedisLayer
) -> Iterator[Finding]:
    is_pubsub = isinstance(layer, RedisPubSubChannelLayer)
    kind = "pubsub" if is_pubsub else "normal"
    is_cluster, is_encrypted = shard.is_cluster, layer._clock is not None
    yield from _guarded("INFO", server, look_at_facts(server, is_cluster))
    yield from _guarded("CONFIG GET", server, look_at_settings(server, kind))
    yield from _guarded("TIME", server, _clock(server, is_encrypted))
    rights = look_at_rights(
        server,
        layer.prefix,
        is_cluster=is_cluster,
        is_pubsub=is_pubsub,
        is_sharded=is_pubsub and is_cluster and layer.sharded_pubsub,
    )
    yield from _guarded("rights", server, rights)
    keys = look_at_keys(server, layer.prefix, layer._operations.flush_pattern())
    yield from _guarded("SCAN", server, keys)


def _guarded(topic: str, server: Server, found: Iterator[Finding]) -> Iterator[Finding]:
    """What a look finds, and why it can't if that is so."""
    try:
        yield from found
    except errors.RedisError as error:
        remedy = ""
        if isinstance(error, errors.NoPermissionError):
            right = f"+{topic.lower().replace(' ', '|')}"
            remedy = grant(server.name, server.user, right)
        elif "unknown command" in str(error):
            remedy = "see the console of who runs this server"
        yield unseen(topic, server.name, error, remedy)


def _clock(server: Server, is_encrypted: bool) -> Iterator[Finding]:
    ahead = server.clock()
    if abs(ahead) < _CLOCKS_APART:
        yield Finding(Level.OK, "clock", server.name, "it is as this machine's")
        return
    text = f"it is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} ours"
    level = Level.WARNING if is_encrypted else Level.NOTE
    remedy = "have both machines keep their clocks by NTP"
    yield Finding(level, "clock", server.name, text, remedy)


def _slots(nodes: list[Server]) -> Iterator[Finding]:
    """By the node that knows of the fewest: the others may not have heard of it."""
    served, name = min((_served_by(node), node.name) for node in nodes)
    level, remedy, text = Level.OK, "", f"all {_SLOTS} slots are served"
    if served < _SLOTS:
        text = f"{served} of {_SLOTS} slots are served: some channels and groups fail"
        level, remedy = Level.ERROR, f"redis-cli --cluster fix {name}"
    yield Finding(level, "slots", name, text, remedy)


def _served_by(node: Server) -> int:
    """How many slots have an owner, as far as a node knows."""
    ranges = node.ask("CLUSTER", "SLOTS")
    return sum(last - first + 1 for first, last, *_ in ranges)
