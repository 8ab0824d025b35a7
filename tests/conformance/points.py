"""What a point is: a sentence of the specification, and the check that holds it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

# Gets two clients of one backend, as in two processes; a layer that lives in one
# process comes twice. What it raises says how the point is broken.
Check = Callable[[Any, Any], Awaitable[None]]


class NotApplicable(Exception):
    """The layer has none of what the point is about, and need not have it."""


@dataclass(frozen=True)
class Point:
    """One promise of the specification.

    `sentence` is quoted from the section, cut with "..."; `must` tells its demands from
    its recommendations. `options` are for the layer's constructor. `waits`: it mostly
    sleeps, so others may run meanwhile.
    """

    name: str
    section: str
    sentence: str
    check: Check
    must: bool
    extension: str | None
    waits: bool
    options: dict[str, Any]


POINTS: dict[str, Point] = {}

# Those of the specification that have points, in its order.
SECTIONS = (
    "Messages",
    "Channels",
    "Asynchronous Support",
    "Capacity",
    "Specification Details",
    "Channel Semantics",
    "Persistence",
    "Approximate Global Ordering",
    "Strings and Unicode",
)


def point(
    section: str,
    sentence: str,
    *,
    name: str = "",
    must: bool = True,
    extension: str | None = None,
    waits: bool = False,
    **options: Any,
) -> Callable[[Check], Check]:
    """Makes a check a point, by the function's name unless it is given another."""

    def register(check: Check) -> Check:
        title = name or check.__name__.replace("_", " ")
        POINTS[title] = Point(
            title, section, sentence, check, must, extension, waits, options
        )
        return check

    return register


# Sentences that no check holds a layer to, and why.
LEFT_OUT = (
    (
        "only the name up to and including the ! character is passed to the receive()",
        "Channels passes whole names since 2.0",
    ),
    (
        "running receive(['busy', 'quiet'])",
        "receive takes one name, as the details of the same specification say",
    ),
    (
        "Question mark ? (only to delineate single-reader channel names)",
        "Channels' own check of names refuses it",
    ),
    (
        "If a channel subsequently has a successful delivery, ...",
        "what expired before may have ended the membership, so both outcomes are right",
    ),
    (
        'Implementations may want to have a "resilience testing" mode',
        "may",
    ),
)
