"""All that an error report may show: texts, causes, and the variables of frames."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 100_000
SHORT.maxlist = SHORT.maxtuple = SHORT.maxdict = SHORT.maxset = 1_000
SHORT.maxlevel = 20


def everything_told(error: BaseException) -> str:
    """What an error and those that led to it show, of this package and of redis-py.

    As error reporters do, it looks into containers and prints all other variables.
    """
    return "\n".join(_told(error, set()))


def _told(error: BaseException | None, seen: set[int]) -> Iterator[str]:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    yield f"{error!r} {error} {error.args}"
    yield from _variables(error.__traceback__)
    yield from _told(error.__cause__, seen)
    yield from _told(error.__context__, seen)


def _variables(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        frame = traceback.tb_frame
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] in ("channels_redis_fast", "redis"):
            for name, value in frame.f_locals.items():
                yield f"{module}.{frame.f_code.co_name}: {name} = {shown(value)}"
        traceback = traceback.tb_next


def shown(value: Any) -> str:
    """A variable, containers with all that is in them."""
    if isinstance(value, Mapping):
        return SHORT.repr(dict(value))
    return SHORT.repr(value)
