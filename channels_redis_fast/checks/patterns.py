"""Patterns of `channel_capacity` that no channel's name can match."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_ALLOWED = re.compile(r"[A-Za-z0-9_.-]+(![A-Za-z0-9_.-]*)?")
_LONGEST = 100  # characters of a name
# A star, something for one character of any name, or a character.
_PART = re.compile(r"\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)


def useless_patterns(rules: Mapping[Any, Any]) -> Iterator[tuple[Any, str]]:
    """The patterns that decide nothing, and why."""
    catch_all = None
    for pattern in rules:
        if catch_all is not None:
            yield pattern, f"{catch_all!r} comes before it, and matches every name"
        elif isinstance(pattern, str) and (reason := _reason(pattern)):
            yield pattern, reason
        if isinstance(pattern, str) and pattern and not pattern.strip("*"):
            catch_all = pattern


def _reason(glob: str) -> str | None:
    """Why no name can match a glob; None if some may."""
    parts = _PART.findall(glob)
    least = sum(part != "*" for part in parts)
    if not parts:
        return "no name is empty"
    if least > _LONGEST:
        return f"names have at most {_LONGEST} characters"
    if "[" not in glob and not _ALLOWED.fullmatch(_example(parts)):
        return "names hold ASCII letters, digits, hyphens, underscores, periods, one !"
    return None


def _example(parts: list[str]) -> str:
    """A name that the parts of a glob match; allowed, if any such name is."""
    begins_local = parts[0] == "*" and parts[1:2] == ["!"]
    filled = ("" if part == "*" else "x" if part == "?" else part for part in parts)
    return ("x" if begins_local or parts == ["*"] * len(parts) else "") + "".join(
        filled
    )
