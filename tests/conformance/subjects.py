"""The layers that are held to the points."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from . import channels, groups, messages, traffic  # noqa: F401  (their points)
from .points import POINTS, NotApplicable, Point

# Beside the patience that a point has with each message.
_LONGEST = 60.0  # seconds


@dataclass(frozen=True)
class Subject:
    """A layer by its import path (or itself), and its CONFIG."""

    name: str
    layer: str | type
    config: dict[str, Any] = field(default_factory=dict)
    # Two objects are two worlds: it lives in one process.
    is_local: bool = False
    # Only compared with: nobody is surprised by what it breaks.
    is_rival: bool = False

    @property
    def cls(self) -> Any:
        """What the import path names."""
        if not isinstance(self.layer, str):
            return self.layer
        module, _, name = self.layer.rpartition(".")
        return getattr(import_module(module), name)

    def make(self, options: dict[str, Any]) -> Any:
        """A layer; `NotApplicable` if it knows an option not."""
        try:
            return self.cls(**(self.config | options))
        except TypeError as error:
            if not options:
                raise
            raise NotApplicable(f"no option {' or '.join(options)}") from error


@dataclass(frozen=True)
class Outcome:
    """What became of a point: `error` is None if it was kept."""

    error: BaseException | None

    @property
    def word(self) -> str:
        """How the report calls it."""
        if self.error is None:
            return "kept"
        return "n.a." if isinstance(self.error, NotApplicable) else "BROKEN"


async def hold(subject: Subject, points: list[Point]) -> dict[str, Outcome]:
    """Holds a layer to points: first those that wait, together; `flush` last."""
    waiting = [point for point in points if point.waits]
    outcomes = await asyncio.gather(*(_outcome(subject, p) for p in waiting))
    found = {
        point.name: outcome for point, outcome in zip(waiting, outcomes, strict=True)
    }
    rest = [point for point in points if not point.waits]
    for point in sorted(rest, key=lambda point: point.extension == "flush"):
        found[point.name] = await _outcome(subject, point)
    return {point.name: found[point.name] for point in points}


def hold_all(subject: Subject) -> dict[str, Outcome]:
    """Holds a layer to all points, in an event loop of its own."""
    return asyncio.run(hold(subject, list(POINTS.values())))


async def _outcome(subject: Subject, point: Point) -> Outcome:
    try:
        async with _opened(subject, point) as (one, other):
            await asyncio.wait_for(point.check(one, other), _LONGEST)
    except Exception as error:
        return Outcome(error)
    return Outcome(None)


@asynccontextmanager
async def _opened(subject: Subject, point: Point) -> AsyncIterator[tuple[Any, Any]]:
    one = subject.make(point.options)
    other = one if subject.is_local else subject.make(point.options)
    try:
        if point.extension and point.extension not in one.extensions:
            raise NotApplicable(f"no extension {point.extension}")
        yield one, other
    finally:
        for layer in {id(layer): layer for layer in (one, other)}.values():
            close = getattr(layer, "close_pools", None) or getattr(layer, "close", None)
            if close is not None:
                await close()
