"""How many messages are put together, and what came of each."""

from __future__ import annotations

from typing import Any

import pytest
from channels.exceptions import ChannelFull
from redis import exceptions as errors

from channels_redis_fast.commands import bulk
from channels_redis_fast.commands.bulk import GroupSendMany, SendMany, collect
from channels_redis_fast.commands.operations import Operations, Request
from channels_redis_fast.commands.scripts import MEMBERS, SEND_MANY, key_of
from channels_redis_fast.core import RedisChannelLayer

LOST = errors.ConnectionError("lost")


class Redis:
    """Answers requests as it is told: with 1 for each message, or by its key."""

    def __init__(self, **replies: Any) -> None:
        self.trips: list[list[Request]] = []
        self.began: list[float] = []
        self._replies = replies

    async def run_all(self, requests: list[Request], began: float = 0.0) -> list[Any]:
        """As an engine's."""
        self.trips.append(requests)
        self.began.append(began)
        return [self._reply(command) for _, command in requests]

    def _reply(self, command: Any) -> Any:
        key = key_of(command)
        name = (key.decode() if isinstance(key, bytes) else key).split(":")[-1]
        if command[1] == MEMBERS.sha:
            return self._replies.get(name, [])
        count = len(command[6::2]) if command[1] == SEND_MANY.sha else 1
        reply = self._replies.get(name.removeprefix("asgi"), 1)
        return reply if isinstance(reply, Exception) else [reply] * count

    def counts(self) -> list[dict[str, int]]:
        """By the name of a channel, how many messages each trip had."""
        return [
            {
                str(bytes(key_of(command)).decode()).removeprefix("asgi"): len(
                    command[6::2]
                )
                for _, command in trip
            }
            for trip in self.trips
        ]


@pytest.fixture
def operations() -> Operations:
    return RedisChannelLayer()._operations


def sent(operations: Operations, *pairs: Any) -> SendMany:
    """What sends some pairs."""
    work = SendMany(operations, pairs)
    collect(work, lambda n, channel, message: work.store(n, channel, channel, message))
    return work


async def test_a_channels_messages_go_together(operations: Operations) -> None:
    redis = Redis()
    work = sent(operations, *((name, {}) for name in "abaab"))
    assert await work.run(redis.run_all, 7.0) == [None] * 5
    assert redis.counts() == [{"a": 3, "b": 2}]
    assert redis.began == [7.0]


async def test_many_are_divided(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A channel's portions come one after the other; each has its own time."""
    monkeypatch.setattr(bulk, "_MOST", 4)
    redis = Redis()
    work = sent(operations, *[("a", {})] * 9, ("b", {}))
    assert await work.run(redis.run_all, 7.0) == [None] * 10
    assert redis.counts() == [{"a": 4, "b": 1}, {"a": 4}, {"a": 1}]
    assert redis.began == [7.0, 0.0, 0.0]


async def test_large_ones_are_divided(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is larger than a portion goes alone."""
    monkeypatch.setattr(bulk, "_LARGEST", 100)
    redis = Redis()
    sizes = [10, 10, 500, 60, 60]
    work = sent(operations, *(("a", {"": "x" * size}) for size in sizes))
    assert await work.run(redis.run_all) == [None] * 5
    assert redis.counts() == [{"a": 2}, {"a": 1}, {"a": 1}, {"a": 1}]


async def test_what_came_of_each(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error is of all that a channel would still have got."""
    monkeypatch.setattr(bulk, "_MOST", 1)
    redis = Redis(full=0, away=LOST)
    pairs = [("ok", {}), ("full", {}), ("away", {}), ("away", {}), ("ok", {})]
    first, full, *away, last = await sent(operations, *pairs).run(redis.run_all)
    assert first is last is None
    assert isinstance(full, ChannelFull)
    assert away == [LOST, LOST]
    assert redis.counts() == [{"ok": 1, "full": 1, "away": 1}, {"ok": 1}]


async def test_publications_go_with_the_first(operations: Operations) -> None:
    redis = Redis(gone=LOST)
    work = SendMany(operations, [("a", {}), ("b", {}), ("gone", {})])
    work.store(0, "a", "a", {})
    for number, name in (1, "b"), (2, "gone"):
        work.publish(number, name, b"payload")
    assert [name for _, name, _ in work.publications] == ["b", "gone"]
    requests: list[Request] = [(0, (b"PUBLISH", n, b"")) for n in ("b", "gone")]
    assert await work.run(redis.run_all, 0.0, requests) == [None, None, LOST]
    assert [len(trip) for trip in redis.trips] == [3]


async def test_a_wrong_pair_costs_no_other(operations: Operations) -> None:
    redis = Redis()
    work = sent(operations, ("a", {}), ("b", {"no": object()}), ("a", {}))
    first, wrong, last = await work.run(redis.run_all)
    assert first is last is None
    assert isinstance(wrong, TypeError)
    with pytest.raises(TypeError, match="not a pair"):
        sent(operations, ("a", {}), "b")


async def test_groups_are_asked_for_once(operations: Operations) -> None:
    names = [b"specific.a!x", b"specific.a!y", b"specific.b!z"]
    redis = Redis(room=names, away=LOST)
    groups = ["room", "away", "room", "empty"]
    work = GroupSendMany(operations, [(group, {}) for group in groups])
    for number, (group, message) in enumerate(work.pairs):
        work.add(number, group, message, check=False)
    assert await work.run(redis.run_all) == [None, LOST, None, None]
    members, deliveries = redis.trips
    assert len(members) == 3
    assert redis.counts()[1] == {"specific.a!": 2, "specific.b!": 2}
    assert len(deliveries) == 2
