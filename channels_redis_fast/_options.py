"""The names of options: those that a layer takes, and what an unknown one may mean."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection
from typing import Any

from redis.asyncio.connection import (
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)


def options_of(layer: type) -> list[str]:
    """The names of the options that a layer's class takes."""
    _, *parameters = inspect.signature(vars(layer)["__init__"]).parameters.values()
    return [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]


def refuse_unknown(unknown: dict[str, Any], known: Collection[str]) -> None:
    """Raises `TypeError` for an option that there isn't, saying what may be meant.

    Empties `unknown`, whose values error reporters would show: one may be a password.
    """
    names = list(unknown)
    unknown.clear()
    if names:
        raise TypeError(f"unknown option {names[0]!r}{_hint(names[0], known)}")


def _hint(name: str, known: Collection[str]) -> str:
    if name in _connection_arguments():
        return f": it belongs into an entry of 'hosts', as in hosts=[{{{name!r}: ...}}]"
    if close := difflib.get_close_matches(name, known, n=1):
        return f"; the closest known is {close[0]!r}"
    return f"; there are {', '.join(known)}. Connection arguments belong into `hosts`"


def _connection_arguments() -> set[str]:
    """What redis-py takes, and what says which kind of host it is."""
    kinds = (Connection, SSLConnection, UnixDomainSocketConnection, ConnectionPool)
    names = {"address", "cluster", "master_name", "sentinel_kwargs", "sentinels", "ssl"}
    for kind in {base for each in kinds for base in each.__mro__[:-1]}:
        if "__init__" not in vars(kind):
            continue
        parameters = inspect.signature(vars(kind)["__init__"]).parameters.values()
        names |= {one.name for one in parameters if one.kind is not one.VAR_KEYWORD}
    return names - {"self"}
