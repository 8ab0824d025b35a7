"""Rules of a state machine whose programs follow a group with a history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from channels_redis_fast.types import BEGINNING
from support.following_steps import Act, Following
from support.histories import Follower
from support.storms import ELSEWHERE, HERE, THREAD

layers = st.integers(0, 1)
syncs = st.sampled_from([False, False, True])
spots = st.integers(0, 1000)  # in a list, over and over
# None: from now on; a number: a place that was told so long ago.
sinces = st.sampled_from([None, BEGINNING, "log@nowhere"]) | st.integers(0, 12)
acts = st.tuples(
    st.sampled_from(["send", "send", "join", "take"]),
    layers,
    st.sampled_from([HERE, HERE, THREAD, ELSEWHERE]),
    spots,
    sinces,
    st.integers(1, 5),
)


class FollowingRules:
    """What may happen to a group with a history, and to who follows it."""

    kind: str
    tally: Counter[str]
    following: Following
    run: Callable[..., Any]
    storm_with: Callable[..., Any]

    def _follower(self, spot: int) -> Follower | None:
        found = self.following.histories.followers
        return found[spot % len(found)] if found else None

    def _since(self, since: Any) -> str | None:
        if not isinstance(since, int):
            return since
        places = self.following.histories.places[-1 - since :]
        return places[0] if places else None

    @rule(layer=layers, sync=syncs)
    def new_follower(self, layer: int, sync: bool) -> None:
        if len(self.following.histories.followers) < 4:
            self.run(self.following.new(layer, sync))

    @rule(spot=spots, since=sinces, sync=syncs, is_empty=st.booleans())
    def follow(self, spot: int, since: Any, sync: bool, is_empty: bool) -> None:
        if (follower := self._follower(spot)) is not None:
            if is_empty or not self.following.is_roomy:
                self.run(self.following.drain(follower))
            self.run(self.following.join(follower, self._since(since), sync))

    @rule(spot=spots, sync=syncs)
    def follow_no_more(self, spot: int, sync: bool) -> None:
        if (follower := self._follower(spot)) is not None:
            self.run(self.following.leave(follower, sync))

    @rule(layer=layers, sync=syncs, count=st.integers(1, 8))
    def append(self, layer: int, sync: bool, count: int) -> None:
        self.run(self.following.send(layer, sync, count))

    @rule(spot=spots, count=st.integers(1, 8), sync=syncs)
    def take(self, spot: int, count: int, sync: bool) -> None:
        if (follower := self._follower(spot)) is not None:
            self.run(self.following.take(follower, count, sync))

    @rule(layer=layers, sync=syncs, since=sinces, limit=st.none() | st.integers(1, 5))
    def page(self, layer: int, sync: bool, since: Any, limit: int | None) -> None:
        self.run(self.following.page(layer, sync, self._since(since), limit))

    @rule(layer=layers, sync=syncs)
    def begin_history_anew(self, layer: int, sync: bool) -> None:
        self.run(self.following.forget(layer, sync))

    @rule(
        drawn=st.lists(acts, min_size=2, max_size=6),
        fault=st.sampled_from(["", "kill", "replies", "requests"]),
        at=st.integers(0, 600),
    )
    def follow_in_a_storm(self, drawn: list[Any], fault: str, at: int) -> None:
        busy: set[tuple[str, int]] = set()
        found = [self._act(busy, *one) for one in drawn]
        self.storm_with(self.following.storm, found, fault, at)

    def _act(
        self,
        busy: set[tuple[str, int]],
        kind: str,
        layer: int,
        where: str,
        spot: int,
        since: Any,
        count: int,
    ) -> Act:
        """What can be done: joins and receives of a follower are done one by one."""
        follower = spot % max(1, len(self.following.histories.followers))
        is_full = kind == "join" and not self.following.is_roomy
        if self._follower(spot) is None or (kind, follower) in busy or is_full:
            kind = "send"
        busy.add((kind, follower))
        if kind == "join" and where == ELSEWHERE and self.kind == "pubsub":
            where = HERE  # the other loop takes its subscriptions with it
        return Act(kind, layer, where, follower, self._since(since), count)
