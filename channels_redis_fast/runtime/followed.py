"""Memberships of channels that follow their groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .memberships import Memberships


class FollowedMemberships(Memberships):
    """The same; `on_leave` is told who is no member any more, or should be none."""

    def __init__(self, on_leave: Callable[[str, str], object], *args: Any) -> None:
        super().__init__(*args)
        self._on_leave = on_leave

    @contextmanager
    def leaving(self, group: str, channel: str) -> Iterator[None]:
        """As `Memberships` does it."""
        with super().leaving(group, channel):
            yield
        membership = self._find(group, channel)
        if membership is None or membership.since is None:  # else it joined again
            self._on_leave(group, channel)

    def _forget(self, group: str, channel: str) -> None:
        super()._forget(group, channel)
        self._on_leave(group, channel)
