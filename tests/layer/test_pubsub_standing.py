"""A Pub/Sub layer whose event loops stand still without being closed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from channels_redis_fast.pubsub import RedisPubSubChannelLayer as Layer
from channels_redis_fast.runtime.errand import Errand
from support.layers import soon
from support.loops import LoopThread
from support.polling import until
from support.pubsubs import subscribers
from support.servers import Server

STOOD = "came to an event loop that stood still"


@pytest.fixture
def still(new_loop: Callable[[], Any]) -> Iterator[Any]:
    """A loop that runs only when it is told to."""
    loop = new_loop()
    yield loop
    loop.close()


def test_what_came_to_a_loop_that_stood_still_is_counted(
    valkey: Server, still: Any, threads: list[LoopThread]
) -> None:
    """Once another loop has taken the name over: Pub/Sub keeps nothing."""
    layer, (first, _) = Layer(hosts=[valkey.url]), threads
    name = still.run_until_complete(layer.new_channel())
    payload = layer.serialize({"n": 1})
    valkey.client().publish(name, payload)
    waiting = first.begin(soon(layer, name))
    until(lambda: subscribers(valkey, name) == 2, "the other loop")
    still.run_until_complete(asyncio.sleep(0.5))
    assert layer.counters == {STOOD: 1}
    assert subscribers(valkey, name) == 1
    valkey.client().publish(name, layer.serialize({"n": 2}))
    assert waiting.result(20) == {"n": 2}
    still.run_until_complete(asyncio.sleep(0.1))
    assert layer.counters == {STOOD: 1}


def test_nothing_piles_up_in_a_loop_that_stands_still(
    valkey: Server, still: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Layer(hosts=[valkey.url])
    name, own = (still.run_until_complete(layer.new_channel()) for _ in range(2))
    still.run_until_complete(layer.group_add("room", name))
    left = still.create_task(layer.receive(own))
    still.run_until_complete(asyncio.sleep(0))
    calls: list[Any] = []

    async def look() -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await soon(layer, name, 0.01)
        await layer.group_discard("room", name)
        await layer.group_add("room", name)

    with monkeypatch.context() as patch:
        patch.setattr(still, "call_soon_threadsafe", lambda *call: calls.append(call))
        for _ in range(20):
            asyncio.run(look())
    assert len(calls) <= 1
    valkey.client().publish(own, layer.serialize({"n": 1}))
    still.run_until_complete(asyncio.sleep(1.5))  # its clock sees to all of it
    valkey.client().publish(own, layer.serialize({"n": 2}))
    assert still.run_until_complete(asyncio.wait_for(left, 10))["n"] in {1, 2}
    still.run_until_complete(layer.group_send("room", {"n": 3}))
    assert still.run_until_complete(soon(layer, name)) == {"n": 3}


def test_a_wait_that_fails_to_begin_leaves_nobody_behind(
    valkey: Server, threads: list[LoopThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a loop that is about to end; messages are for those who wait."""
    layer, (first, second) = Layer(hosts=[valkey.url]), threads
    name = first.run(layer.new_channel())

    def refuse() -> Any:
        raise RuntimeError("this loop ends")

    with monkeypatch.context() as patch:
        patch.setattr(layer._subscriptions, "_here", refuse)
        with pytest.raises(RuntimeError, match="this loop ends"):
            second.run(layer.receive(name))
    first.run(layer.send(name, {"n": 1}))
    assert first.run(soon(layer, name)) == {"n": 1}


def test_a_loop_that_only_waits_takes_over(
    valkey: Server, threads: list[LoopThread]
) -> None:
    """It made no call but this, on a name that another loop listens to."""
    layer, (first, second) = Layer(hosts=[valkey.url]), threads
    name = first.run(layer.new_channel())
    waiting = second.begin(soon(layer, name))
    (inbox,) = layer._mailboxes.owners.inboxes()
    until(lambda: inbox.waiting, "the wait")
    first.stop()
    until(lambda: subscribers(valkey, name) == 2, "the second to take over")
    valkey.client().publish(name, layer.serialize({"n": 1}))
    assert waiting.result(20) == {"n": 1}


def test_an_outage_ends_without_a_loop_that_heard_of_it(
    server: Server, threads: list[LoopThread], still: Any
) -> None:
    """And the next one is told, too."""
    layer = Layer(hosts=[server.url], on_disconnect="gone", on_reconnect="back")
    first, _ = threads
    other = still.run_until_complete(layer.new_channel())
    name = first.run(layer.new_channel())

    def told() -> str:
        return str(first.run(soon(layer, name))["type"])

    for _ in range(2):
        server.kill()
        with contextlib.suppress(asyncio.TimeoutError):
            still.run_until_complete(soon(layer, other, 0.3))  # hears of it
        assert told() == "gone"
        server.start()
        assert told() == "back"


def test_a_loop_that_goes_on_begins_no_outage(
    server: Server, threads: list[LoopThread], still: Any
) -> None:
    """What it lost meanwhile, others listen to already."""
    layer = Layer(hosts=[server.url], on_disconnect="gone", on_reconnect="back")
    first, _ = threads
    name = still.run_until_complete(layer.new_channel())
    waiting = first.begin(soon(layer, name))
    until(lambda: subscribers(server, name) == 2, "the other loop")
    server.restart(empty=True)
    assert waiting.result(20) == {"type": "gone"}
    assert first.run(soon(layer, name)) == {"type": "back"}
    still.run_until_complete(asyncio.sleep(0.5))
    first.run(layer.send(name, {"n": 1}))
    assert first.run(soon(layer, name)) == {"n": 1}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_message_that_a_thread_gave_up_goes_back(
    valkey: Server, threads: list[LoopThread], when: str
) -> None:
    """It came as the thread was interrupted, or as the loop was too busy to say so."""
    layer, (first, _) = Layer(hosts=[valkey.url]), threads
    name = first.run(layer.new_channel())
    layer.sync.send(name, {"n": 2})
    until(lambda: layer._mailboxes.snapshot(), "the later one")
    began, came = threading.Event(), threading.Event()

    async def receive() -> dict[str, Any]:
        began.set()
        if when == "after":
            with contextlib.suppress(asyncio.CancelledError):  # it is given just now
                await asyncio.sleep(20)
        came.set()
        return {"n": 1}

    put_back = functools.partial(layer._mailboxes.put_first, name)
    errand = Errand(receive(), first.loop, put_back)

    def interrupt(timeout: float | None) -> bool:
        assert began.wait(20)
        if when == "before":
            until(errand._outcome.done, "the message")
        raise KeyboardInterrupt

    errand._wait = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        errand.result(None, 5)
    assert came.wait(20)
    until(lambda: len(layer._mailboxes.snapshot()[name]) == 2, "it to go back")
    assert [layer.sync.receive(name, 20)["n"] for _ in range(2)] == [1, 2]
