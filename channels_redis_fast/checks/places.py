"""Where data is, by settings: of the entries of `hosts`, and of CACHES."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from redis.connection import parse_url

from .._base import BaseRedisLayer

# A server by its address, or the name that Sentinels know it by; and a database of it.
Place = tuple[str, int]

_REDIS_CACHE = re.compile(r"redis|valkey", re.IGNORECASE)
_LOOPBACK = {"localhost": "127.0.0.1", "::1": "127.0.0.1"}
_PORT = 6379


def places_of(layer: BaseRedisLayer) -> set[Place]:
    """The databases that a layer's keys are in."""
    return {place for host in layer.hosts for place in _places(host)}


def cache_places() -> Iterator[tuple[str, set[Place]]]:
    """The aliases of CACHES that are in Redis, and their databases."""
    for alias, cache in (getattr(settings, "CACHES", None) or {}).items():
        if _REDIS_CACHE.search(str(cache.get("BACKEND", ""))):
            yield alias, set(_cache_places(cache))


def address_of(host: Mapping[str, Any]) -> str | None:
    """The name or IP address of the server of an entry; None: there are several."""
    arguments = _arguments(host)
    if arguments.keys() & {"cluster", "sentinels", "path"}:
        return None
    return str(arguments.get("host", "localhost"))


def _places(host: Mapping[str, Any]) -> Iterator[Place]:
    arguments = _arguments(host)
    database = int(arguments.get("db") or 0)
    if "cluster" in arguments:
        for address, port in arguments["cluster"]:
            yield _server(address, port), 0
    elif "master_name" in arguments:
        yield arguments["master_name"], database
    elif "path" in arguments:
        yield arguments["path"], database
    else:
        server = arguments.get("host", "localhost"), arguments.get("port", _PORT)
        yield _server(*server), database


def _cache_places(cache: Mapping[str, Any]) -> Iterator[Place]:
    options = cache.get("OPTIONS") or {}
    locations = cache.get("LOCATION") or []
    if isinstance(locations, str):
        locations = re.split(r"[;,]\s*", locations)
    for location in locations:
        if "://" not in location:
            continue
        arguments = {"db": options.get("db"), **_parsed(location)}
        yield from _places(arguments)
        # With Sentinels, some caches name the primary where a host would be.
        name, port = urlsplit(location).hostname, arguments.get("port")
        if name and not port:
            yield name, int(arguments.get("db") or 0)


def _arguments(host: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of redis-py for an entry: what its URL says, too."""
    arguments = dict(host)
    if address := arguments.pop("address", None):
        arguments |= _parsed(address)
    return arguments


def _parsed(url: str) -> dict[str, Any]:
    try:
        return dict(parse_url(re.sub("^valkey", "redis", url)))
    except ValueError:  # it is the cache's to say so
        return {}


def _server(host: str, port: Any) -> str:
    host = host.lower()
    return f"{_LOOPBACK.get(host, host)}:{port}"
