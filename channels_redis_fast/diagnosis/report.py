"""What was found, for people and for machines."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .diagnose import diagnose
from .finding import Finding, Level

_REMEDY = "\n" + " " * 13 + "-> "


def check(
    layers: Iterable[tuple[str, Callable[[], Any]]],
    write: Callable[[str], object],
    *,
    as_json: bool = False,
) -> int:
    """Diagnoses layers, each made by a function, and writes what was found.

    Returns how many errors there are. `write` takes a line, or all that is JSON.
    """
    found: dict[str, list[Finding]] = {}
    for alias, make in layers:
        found[alias] = _findings(alias, make)
        if not as_json:
            _write_text(write, alias, found[alias])
    if as_json:
        write(_as_json(found))
    else:
        write(_sum(found))
    return _count(found, Level.ERROR)


def _findings(alias: str, make: Callable[[], Any]) -> list[Finding]:
    try:
        layer = make()
    except Exception as error:  # a layer's class may raise anything
        text = f"can't be made: {error}"
        remedy = "manage.py check says the same, and checks what CONFIG holds"
        return [Finding(Level.ERROR, "settings", alias, text, remedy)]
    return diagnose(alias, layer)


def _write_text(
    write: Callable[[str], object], alias: str, findings: list[Finding]
) -> None:
    write(alias)
    for where, group in itertools.groupby(findings, lambda one: one.where):
        if where != alias:
            write(f"  {where}")
        for level, topic, _, text, remedy in group:
            told = level.value.upper() if level in _BAD else level.value
            write(f"    {told:<9}{topic}: {text}{_REMEDY + remedy if remedy else ''}")


_BAD = (Level.WARNING, Level.ERROR)


def _as_json(found: Mapping[str, list[Finding]]) -> str:
    plain = {
        alias: [{**one._asdict(), "level": one.level.value} for one in findings]
        for alias, findings in found.items()
    }
    return json.dumps({"errors": _count(found, Level.ERROR), "layers": plain}, indent=2)


def _sum(found: Mapping[str, list[Finding]]) -> str:
    return ", ".join(
        f"{count} {level.value}{'' if count == 1 or level is Level.UNSEEN else 's'}"
        for level in (Level.ERROR, Level.WARNING, Level.UNSEEN)
        if (count := _count(found, level)) or level is not Level.UNSEEN
    )


def _count(found: Mapping[str, list[Finding]], level: Level) -> int:
    return sum(one.level is level for findings in found.values() for one in findings)
