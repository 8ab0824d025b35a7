"""What is wrong with CHANNEL_LAYERS, wherever the site runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, count
from typing import Any

from django.core.checks import CheckMessage, Error, Warning

from .._base import BaseRedisLayer
from .._overlaps import is_overlap
from .configured import Configured, configured_layers, our_layers
from .patterns import useless_patterns
from .places import Place, cache_places, places_of

_Ours = tuple[Configured, BaseRedisLayer]


def check_layers(**about: Any) -> list[CheckMessage]:
    """E001, and W001 to W004: docs/operations.md has them."""
    ours = list(our_layers())
    found = list(_refused())
    used = set[Place]().union(
        *(places_of(layer) for _, layer in ours),
        *(places for _, places in cache_places()),
    )
    for one, layer in ours:
        found += _shared_with_caches(one, layer, used)
        found += _useless_patterns(one, layer)
        found += _short_groups(one, layer)
    for pair in combinations(ours, 2):
        found += _overlaps(*pair)
    return found


def _refused() -> Iterator[CheckMessage]:
    for one in configured_layers():
        if one.problem is not None:
            text = f"{one.name}: {one.problem}"
            yield Error(text, id="channels_redis_fast.E001")


def _shared_with_caches(
    one: Configured, layer: BaseRedisLayer, used: set[Place]
) -> Iterator[CheckMessage]:
    ours = places_of(layer)
    for alias, places in cache_places():
        if shared := ours & places:
            server, database = min(shared)
            free = next(n for n in count() if (server, n) not in used)
            yield Warning(
                f"{one.name} is in database {database} of {server}, as is "
                f"CACHES[{alias!r}]: its clear() deletes the layer's data.",
                hint="Give the cache a database of its own, as "
                f"redis://.../{free}; on a Cluster, a server of its own.",
                id="channels_redis_fast.W001",
            )


def _overlaps(one: _Ours, other: _Ours) -> Iterator[CheckMessage]:
    (first, a), (second, b) = sorted((one, other), key=lambda pair: len(pair[1].prefix))
    if is_overlap(a.prefix, b.prefix) and places_of(a) & places_of(b):
        yield Warning(
            f"The prefix {a.prefix!r} of {first.name} begins {b.prefix!r} of "
            f"{second.name}, on the same Redis: their keys may mix, and flush() of the "
            "one deletes the other's.",
            hint="Choose some of which none begins the other, in all processes at "
            f"once, as 'asgi-{first.alias}.' and 'asgi-{second.alias}.'",
            id="channels_redis_fast.W002",
        )


def _useless_patterns(one: Configured, layer: BaseRedisLayer) -> Iterator[CheckMessage]:
    rules = one.config.get("channel_capacity") or {}
    if not layer._names_are_standard:  # a subclass says what a name is
        return
    for pattern, reason in useless_patterns(rules):
        yield Warning(
            f"{one.name}: the pattern {pattern!r} of channel_capacity can't match: "
            f"{reason}.",
            hint="Patterns are globs over channel names, without the prefix; the first "
            "that matches decides.",
            id="channels_redis_fast.W003",
        )


def _short_groups(one: Configured, layer: BaseRedisLayer) -> Iterator[CheckMessage]:
    if layer.expiry > layer.group_expiry:
        yield Warning(
            f"{one.name}: a message lasts longer (expiry {layer.expiry:g} s) than "
            f"membership in a group (group_expiry {layer.group_expiry:g} s).",
            hint="Lower expiry (60 s is usual), or raise group_expiry (a day is).",
            id="channels_redis_fast.W004",
        )
