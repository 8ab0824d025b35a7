"""What INFO tells: each question is a small function of the facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from .finding import Finding, Level, redis_cli, set_for_good
from .server import Server

Facts: TypeAlias = Mapping[str, str]
_Found: TypeAlias = Iterator[Finding]

_OLDEST_LAG = 10  # seconds since a replica was heard
_FULL = 0.9  # of maxmemory, or of maxclients


def look_at_facts(server: Server, is_cluster: bool) -> _Found:
    """All that INFO tells about a server, which is named as a Cluster's or as none."""
    where, facts = server.name, server.info()
    if facts.get("cluster_enabled") == "1" and not is_cluster:
        text = "a node of a Cluster, named as a server of its own"
        remedy = (
            'name the nodes in one entry of hosts: {"cluster": [(host, port), ...]}'
        )
        yield Finding(Level.ERROR, "cluster", where, text, remedy)
    for question in _QUESTIONS:
        yield from question(where, facts)


def _version(where: str, facts: Facts) -> _Found:
    name, version = "Redis", facts.get("redis_version", "of no known version")
    if "valkey_version" in facts:
        name, version = "Valkey", facts["valkey_version"]
    yield Finding(Level.OK, "version", where, f"{name} {version}")


def _role(where: str, facts: Facts) -> _Found:
    if facts.get("role") != "slave":
        yield Finding(Level.OK, "role", where, "a primary")
        return
    primary = f"{facts.get('master_host')}:{facts.get('master_port')}"
    text = "a replica, which takes no messages"
    if facts.get("slave_read_only") == "0":
        text = "a replica; what is written to it is lost at its next synchronisation"
    scheme = "rediss" if where.startswith("rediss:") else "redis"
    remedy = f"name its primary {scheme}://{primary} in hosts, or its Sentinels"
    yield Finding(Level.ERROR, "role", where, text, remedy)


def _eviction(where: str, facts: Facts) -> _Found:
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        yield Finding(Level.OK, "eviction", where, "nothing is evicted (noeviction)")
        return
    remedy = set_for_good(where, "maxmemory-policy", "noeviction")
    if facts.get("maxmemory", "0") == "0":
        text = f"maxmemory-policy {policy} would evict, but maxmemory is not set"
        yield Finding(Level.NOTE, "eviction", where, text, remedy)
        return
    text = f"maxmemory-policy {policy} may evict messages and groups without a word"
    yield Finding(Level.WARNING, "eviction", where, text, remedy)


def _evicted(where: str, facts: Facts) -> _Found:
    if (evicted := int(facts.get("evicted_keys", 0))) > 0:
        text = f"{evicted:,} keys were evicted since the server started"
        remedy = (
            "maxmemory-policy noeviction, and more maxmemory or a server of its own"
        )
        level = Level.WARNING
        if facts.get("maxmemory_policy") == "noeviction":
            level, remedy = Level.NOTE, redis_cli(where, "CONFIG", "RESETSTAT")
            text += ", all before its maxmemory-policy was noeviction"
        yield Finding(level, "evicted", where, text, remedy)


def _memory(where: str, facts: Facts) -> _Found:
    most = int(facts.get("maxmemory", 0))
    if most and (share := int(facts.get("used_memory", 0)) / most) > _FULL:
        text = f"{share:.0%} of maxmemory is used: soon sends are refused (OOM)"
        remedy = "raise maxmemory, or lower capacity and expiry"
        yield Finding(Level.WARNING, "memory", where, text, remedy)


def _clients(where: str, facts: Facts) -> _Found:
    most = int(facts.get("maxclients", 0))
    if most and (share := int(facts.get("connected_clients", 0)) / most) > _FULL:
        text = f"{share:.0%} of maxclients ({most:,}) are connected"
        yield Finding(Level.WARNING, "clients", where, text, "raise maxclients")


def make_room(where: str) -> str:
    """What to do when snapshots fail."""
    none = set_for_good(where, "save", "")
    return f"make room on its disk, or have no snapshots: {none}"


def _snapshots(where: str, facts: Facts) -> _Found:
    if facts.get("rdb_last_bgsave_status", "ok") != "ok":
        text = "the last snapshot failed: Redis refuses writes meanwhile (MISCONF)"
        yield Finding(Level.WARNING, "snapshots", where, text, make_room(where))


def _replicas(where: str, facts: Facts) -> _Found:
    for number in range(int(facts.get("connected_slaves", 0))):
        replica = dict(
            pair.partition("=")[::2] for pair in facts[f"slave{number}"].split(",")
        )
        name = f"replica {replica.get('ip')}:{replica.get('port')}"
        state, lag = replica.get("state"), int(replica.get("lag", 0))
        if state != "online" or lag > _OLDEST_LAG:
            text = (
                f"{name} is {state}, and was heard {lag} s ago: a failover loses that"
            )
            remedy = "look at the replica's log, and at the network between them"
            yield Finding(Level.WARNING, "replicas", where, text, remedy)
        else:
            text = f"{name} is online, and was heard {lag} s ago"
            yield Finding(Level.OK, "replicas", where, text)


_QUESTIONS: tuple[Callable[[str, Facts], _Found], ...] = (
    _version,
    _role,
    _eviction,
    _evicted,
    _memory,
    _clients,
    _snapshots,
    _replicas,
)
