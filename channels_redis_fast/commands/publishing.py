"""The commands of Pub/Sub, and whether a server knows the sharded ones; no I/O."""

from __future__ import annotations

from typing import NamedTuple

from .command import Command


class Verbs(NamedTuple):
    """The commands of one kind of Pub/Sub."""

    subscribe: bytes
    unsubscribe: bytes
    publish: bytes


CLASSIC = Verbs(b"SUBSCRIBE", b"UNSUBSCRIBE", b"PUBLISH")
SHARDED = Verbs(b"SSUBSCRIBE", b"SUNSUBSCRIBE", b"SPUBLISH")


def ask_for_sharded(name: str | bytes) -> Command:
    """Asks whether the server of a name knows sharded Pub/Sub; the answer is an error.

    One argument is missing, which servers say (from 7.0) before they look at slots and
    rights; they do nothing.
    """
    return SHARDED.publish, name


def verbs_by(answer: Exception) -> Verbs:
    """The commands of a server that answered `ask_for_sharded` so."""
    return CLASSIC if "unknown command" in str(answer).lower() else SHARDED
