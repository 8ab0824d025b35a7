"""The layers that a site's settings name, made without a connection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from django.conf import settings
from django.utils.module_loading import import_string

from .._base import BaseRedisLayer
from .._overlaps import forget_layer


class Configured(NamedTuple):
    """An entry of CHANNEL_LAYERS: its layer, if it is one of ours, or its problem."""

    alias: str
    backend: str
    config: Mapping[str, Any]
    layer: BaseRedisLayer | None = None
    problem: str | None = None

    @property
    def name(self) -> str:
        """The entry in words."""
        return f"CHANNEL_LAYERS[{self.alias!r}]"


def configured_layers() -> Iterator[Configured]:
    """Each entry of CHANNEL_LAYERS."""
    entries = getattr(settings, "CHANNEL_LAYERS", None) or {}
    if not isinstance(entries, Mapping):
        problem = f"must be a dict of aliases, not {type(entries).__name__}"
        yield Configured("default", "", {}, problem=problem)
        return
    for alias, entry in entries.items():
        yield _configured(alias, entry)


def our_layers() -> Iterator[tuple[Configured, BaseRedisLayer]]:
    """Those of them that are this package's, and right."""
    for one in configured_layers():
        if one.layer is not None:
            yield one, one.layer


def _configured(alias: str, entry: Any) -> Configured:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("BACKEND"), str):
        problem = "must be a dict with the import path of a layer as its BACKEND"
        return Configured(alias, "", {}, problem=problem)
    backend, config = entry["BACKEND"], entry.get("CONFIG") or {}
    found = Configured(alias, backend, config)
    try:
        kind = import_string(backend)
    except Exception as error:  # importing runs any code
        return found._replace(problem=f"BACKEND can't be imported: {error}")
    try:
        return found._replace(layer=_made(kind, config))
    except Exception as error:  # a subclass may raise anything
        return found._replace(problem=str(error) or type(error).__name__)


def _made(kind: Any, config: Mapping[str, Any]) -> BaseRedisLayer | None:
    if not (isinstance(kind, type) and issubclass(kind, BaseRedisLayer)):
        return None
    layer = kind(**config)
    forget_layer(layer)  # it is none of those in use
    return layer
