"""Layers of one process whose keys would mix: one's prefix begins another's."""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

from ._logs import warn


class Layer(Protocol):
    """What has a prefix on some servers."""

    prefix: str
    _hosts: list[object]


_layers: weakref.WeakSet[Layer] = weakref.WeakSet()
_told: set[tuple[str, str]] = set()
_lock = threading.Lock()


def note_layer(layer: Layer) -> None:
    """Logs those in use whose keys would mix with a new one's."""
    ours, found = set(map(str, layer._hosts)), set()
    with _lock:
        for other in _layers:
            shorter, longer = sorted((layer.prefix, other.prefix), key=len)
            if is_overlap(shorter, longer) and not ours.isdisjoint(
                map(str, other._hosts)
            ):
                found.add((shorter, longer))
        found -= _told
        _told.update(found)
        _layers.add(layer)
    for shorter, longer in found:
        text = "two layers on one Redis, of whose prefixes %r begins %r"
        warn(text, shorter, longer)


def is_overlap(shorter: str, longer: str) -> bool:
    """Whether the keys of two prefixes mix; layers of one prefix are one layer."""
    return shorter != longer and longer.startswith(shorter)


def forget_layer(layer: Layer) -> None:
    """Nobody uses it any more."""
    with _lock:
        _layers.discard(layer)
