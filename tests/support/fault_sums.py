"""Sums over the table of faults: the figures of docs/failures.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Faults that end by one of these: a server that refuses commands for a while.
REFUSALS = ("NOREPLICAS", "MISCONF", "BUSY", "READONLY")


class Row(NamedTuple):
    """A line of the table, as numbers."""

    outages: int
    sent: int
    refused: int
    arrived: int
    lost: int
    bound: int
    doubled: int
    repeats: int
    reordered: int
    gaps: int
    most_gaps: int


def sums(rows: Iterable[Sequence[str]]) -> list[str]:
    """What the lines of `ledger.columns` come to, a line for each layer and kind."""
    kinds: dict[tuple[str, str], list[Row]] = {}
    for fault, layer, *texts in rows:
        row = Row(*map(int, re.findall(r"\d+", " ".join(texts[:-1]))))
        for kind in _kind(fault, row), "all":
            kinds.setdefault((layer, kind), []).append(row)
    return [_line(*kind, kinds[kind]) for kind in sorted(kinds)]


def _kind(fault: str, row: Row) -> str:
    if fault.endswith(REFUSALS):
        return "a server refuses"
    if "failover" in fault:
        return "failovers"
    is_costly = row.bound or row.most_gaps
    return "outages" if is_costly else "nothing may be lost"


def _line(layer: str, kind: str, rows: list[Row]) -> str:
    total = Row(*map(sum, zip(*rows, strict=True)))
    gaps = f", {total.gaps:,} gaps told" if total.most_gaps else ""
    return (
        f"{layer}, {kind}: {total.sent:,} sent, {total.lost:,} lost, "
        f"{total.doubled:,} doubled, {total.reordered:,} overtaken{gaps}, "
        f"in {total.outages:,} outages"
    )
