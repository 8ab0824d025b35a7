"""Who is told when something fills: nobody, until `signals` is imported."""

from __future__ import annotations

import math
import time
from typing import Protocol

HIGH, LOW = 0.8, 0.5  # of a capacity
_EVERY = 1.0  # seconds between what is told of one name
_REMEMBERED = 1000  # names


class Tell(Protocol):
    """Tells who listens; `fill` is a part of a capacity."""

    def __call__(
        self, layer: object, is_over: bool, *, kind: str, name: str, fill: float
    ) -> None: ...


listener: Tell | None = None  # a module's, so that a look at it costs next to nothing


class FillWatch:
    """What of a layer is told to be overloaded."""

    def __init__(self) -> None:
        # By kind and name: whether it is, and when that was told; the oldest first.
        self._told: dict[tuple[str, str], tuple[bool, float]] = {}

    def note(self, layer: object, kind: str, name: str, fill: float) -> None:
        """Takes how full something is, and tells if that matters."""
        was_over, at = self._told.get((kind, name), (False, -math.inf))
        is_over = fill >= HIGH
        is_news = is_over or (was_over and fill < LOW)
        now = time.monotonic()
        if not is_news or now - at < _EVERY or listener is None:
            return
        self._told.pop((kind, name), None)
        self._told[kind, name] = is_over, now
        if len(self._told) > _REMEMBERED:
            self._told.pop(next(iter(self._told)), None)
        listener(layer, is_over, kind=kind, name=name, fill=min(fill, 1.0))

    def note_all(self, layer: object, kind: str, fills: dict[str, float]) -> None:
        """Takes how full all of a kind are; what isn't among them is empty."""
        told = list(self._told.items())
        over = [key[1] for key, (is_over, _) in told if is_over and key[0] == kind]
        for name, fill in {**dict.fromkeys(over, 0.0), **fills}.items():
            self.note(layer, kind, name, fill)
