"""Each fault, on each layer, with every message accounted for: `make faults`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from channels_redis_fast.client import reconnecting
from channels_redis_fast.client.shard import Shard
from support import scenes
from support.accounting import NORMAL, Room
from support.faults import FAULTS, FOLLOWED, REPLAYED, TOLD, Fault
from support.following_rooms import HISTORY, FollowingRoom
from support.inflicting import CAPACITY, TIMEOUT, WAIT
from support.layers import opened
from support.ledger import columns
from support.paths import DOCS, PROMISES
from support.pubsubs import published

OPEN = {"core": opened, "pubsub": published}
# Pub/Sub keeps no count of what is published, only of what waits in the process.
CAPACITIES = {"core": CAPACITY, "pubsub": 100_000}


@contextlib.asynccontextmanager
async def room_in(
    scene: scenes.Scene, layer: str, kind: type[Room] = Room, **options: Any
) -> AsyncIterator[Room]:
    """Two layers that receive and one that sends, and their traffic."""
    defaults = {
        "capacity": CAPACITIES[layer],
        "channel_capacity": {NORMAL: CAPACITY},
        "command_timeout": TIMEOUT,
    }
    options = defaults | options
    readers, senders = scene.hosts
    make = OPEN[layer]
    async with contextlib.AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(make(readers, **options)) for _ in range(2)
        ]
        sender = await stack.enter_async_context(make(senders, **options))
        room = kind(processes, sender)
        stack.push_async_callback(room.close)
        await room.open()
        yield room


@contextlib.asynccontextmanager
async def inflicted(
    fault: Fault,
    layer: str,
    request: pytest.FixtureRequest,
    kind: type[Room] = Room,
    **options: Any,
) -> AsyncIterator[Room]:
    """A room that has suffered a fault, many times if asked to."""
    times = fault.often if request.config.getoption("--often") else fault.times
    with scenes.scene(fault.scene) as scene:
        async with room_in(scene, layer, kind, **options) as room:
            await fault.inflict(scene, room, times)
            yield room


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter waits, and none between faults that follow each other fast."""
    monkeypatch.setattr(reconnecting, "_PROVEN", 0.0)
    monkeypatch.setattr(Shard, "wait", WAIT)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("layer", OPEN)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.slow
async def test_fault(
    fault: Fault,
    layer: str,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    hasty: None,
) -> None:
    async with inflicted(fault, layer, request, **fault.options) as room:
        verdict = await room.finish(fault.promises(layer, room.lines))
    # Texts: what one of several test processes tells the others must be plain.
    record_property("fault", columns(fault.name, layer, verdict))
    assert not verdict.problems


@pytest.mark.timeout(600)
@pytest.mark.parametrize("layer", OPEN)
@pytest.mark.parametrize("fault", FOLLOWED, ids=lambda fault: fault.name)
@pytest.mark.slow
async def test_fault_of_followers(
    fault: Fault,
    layer: str,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    hasty: None,
) -> None:
    options = {**fault.options, "history": HISTORY}
    async with inflicted(fault, layer, request, FollowingRoom, **options) as room:
        verdict = await room.finish(fault.promises_followers())
    record_property("fault", columns(fault.name, f"{layer}, history", verdict))
    assert not verdict.problems


def test_every_promise_is_in_the_docs() -> None:
    promised = PROMISES.read_text()
    assert not [f.promise for f in FAULTS if f"| {f.promise} |" not in promised]
    promised = (DOCS / "replay.md").read_text()
    assert not [one for one in (REPLAYED, TOLD) if f"| {one} |" not in promised]
