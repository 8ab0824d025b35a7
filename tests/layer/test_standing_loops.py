"""Event loops that stand still without being closed, while others go on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.core import RedisChannelLayer
from support.layers import soon
from support.loops import LoopThread
from support.polling import until
from support.servers import Server


@pytest.fixture
def layer(valkey: Server) -> RedisChannelLayer:
    return RedisChannelLayer(hosts=[valkey.url])


def waits(server: Server) -> set[int]:
    """The ids of the connections that wait for a process's messages."""
    return {int(one["id"]) for one in server.clients() if "b" in one["flags"]}


@pytest.fixture
def still(
    layer: RedisChannelLayer, valkey: Server, new_loop: Callable[[], Any]
) -> Iterator[Any]:
    """A loop that reads for the process and stands still, but isn't closed."""
    loop = new_loop()
    name = loop.run_until_complete(layer.new_channel())
    loop.run_until_complete(layer.send(name, {}))
    assert loop.run_until_complete(soon(layer, name)) == {}
    until(lambda: len(waits(valkey)) == 1, "the reader to wait")
    yield loop
    loop.close()


def test_the_reader_stands_still(
    layer: RedisChannelLayer, valkey: Server, still: Any, threads: list[LoopThread]
) -> None:
    """Another loop reads meanwhile, and leaves it the reading when it ends."""
    before = waits(valkey)
    first, _ = threads
    name = first.run(layer.new_channel())
    waiting = first.begin(soon(layer, name))
    until(lambda: waits(valkey) and not waits(valkey) & before, "the other reader")
    first.run(layer.send(name, {"n": 1}))
    assert waiting.result(20) == {"n": 1}
    for n in range(5):  # the other loop reads for the one that goes on, too
        still.run_until_complete(layer.send(name, {"n": n}))
        assert still.run_until_complete(soon(layer, name)) == {"n": n}
    first.close()
    for n in range(5):
        still.run_until_complete(layer.send(name, {"n": n}))
        assert still.run_until_complete(soon(layer, name)) == {"n": n}
    assert len(waits(valkey)) == 1
    assert layer.counters == {}


def test_the_reader_stops_while_another_loop_waits(
    layer: RedisChannelLayer, valkey: Server, threads: list[LoopThread]
) -> None:
    first, second = threads
    names = [thread.run(layer.new_channel()) for thread in threads]
    first.run(layer.send(names[0], {}))
    assert first.run(soon(layer, names[0])) == {}
    before = until(lambda: waits(valkey), "the reader to wait")
    waiting = second.begin(soon(layer, names[1]))
    first.stop()
    until(lambda: waits(valkey) and not waits(valkey) & before, "the other reader")
    second.run(layer.send(names[1], {"n": 1}))
    assert waiting.result(20) == {"n": 1}
    assert layer.counters == {}


def test_a_loop_that_only_waits(
    layer: RedisChannelLayer, valkey: Server, threads: list[LoopThread]
) -> None:
    """It made no other call: nothing but its wait tells that it wants messages."""
    first, second = threads
    name, ours = layer.sync.new_channel(), first.run(layer.new_channel())
    first.run(layer.send(ours, {}))
    assert first.run(soon(layer, ours)) == {}
    before = until(lambda: waits(valkey), "the reader to wait")
    waiting = second.begin(layer.receive(name))
    (inbox,) = layer._mailboxes.owners.inboxes()
    until(lambda: layer._mailboxes.owners.waiting_loops(inbox), "the wait")
    first.stop()
    until(lambda: waits(valkey) and not waits(valkey) & before, "the other reader")
    layer.sync.send(name, {"n": 1})
    assert waiting.result(20) == {"n": 1}


def test_a_loop_that_runs_again_and_again(
    layer: RedisChannelLayer, still: Any, threads: list[LoopThread]
) -> None:
    """It keeps the reading: what it got must not be overtaken."""
    first, _ = threads
    name = first.run(layer.new_channel())
    (inbox,) = layer._mailboxes.owners.inboxes()
    inbox.reader.ran_at += 60  # it ran just now, however slow this machine is
    first.run(layer.send(name, {"n": 1}))

    async def read() -> list[int]:
        return [(await soon(layer, name))["n"] for _ in range(2)]

    waiting = first.begin(read())
    until(lambda: layer._mailboxes.owners.waiting_loops(inbox), "the wait")
    first.run(layer.send(name, {"n": 2}))
    still.run_until_complete(asyncio.wait([asyncio.wrap_future(waiting, loop=still)]))
    assert waiting.result(0) == [1, 2]


def test_nothing_piles_up_in_a_loop_that_stands_still(
    layer: RedisChannelLayer, still: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = still.run_until_complete(layer.new_channel())
    waiting = still.create_task(soon(layer, name))
    still.run_until_complete(asyncio.sleep(0))
    calls: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(still, "call_soon_threadsafe", lambda *call: calls.append(call))
        other = layer.sync.new_channel()
        with pytest.raises(TimeoutError):
            layer.sync.receive(other, timeout=4)  # long enough to take over
        for n in range(50):
            layer.sync.send(other, {"n": n})
            assert layer.sync.receive(other, timeout=20) == {"n": n}
    assert len(calls) < 10  # until the thread takes over, one a second
    still.run_until_complete(layer.send(name, {"n": 1}))
    assert still.run_until_complete(waiting) == {"n": 1}


@pytest.mark.parametrize("stops", ["before", "meanwhile"])
def test_the_reader_stands_still_while_a_thread_waits(
    layer: RedisChannelLayer, valkey: Server, threads: list[LoopThread], stops: str
) -> None:
    first, _ = threads
    names = [first.run(layer.new_channel()) for _ in range(2)]
    first.run(layer.send(names[0], {}))
    assert first.run(soon(layer, names[0])) == {}
    before = until(lambda: waits(valkey), "the reader to wait")
    if stops == "before":
        first.stop()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(layer.sync.receive, names[1], timeout=20)
        if stops == "meanwhile":
            (inbox,) = layer._mailboxes.owners.inboxes()
            until(lambda: inbox.waiting, "the thread to wait")
            first.stop()
        until(lambda: waits(valkey) and not waits(valkey) & before, "the thread to pop")
        layer.sync.send(names[1], {"n": 1})
        assert waiting.result(20) == {"n": 1}
    assert layer.counters == {}


@pytest.mark.parametrize("then", ["goes on", "is closed"])
def test_what_came_to_a_loop_that_stands_still(
    layer: RedisChannelLayer,
    valkey: Server,
    still: Any,
    threads: list[LoopThread],
    then: str,
) -> None:
    """It is delivered, late, when that loop goes on or is closed."""
    first, _ = threads
    name = first.run(layer.new_channel())
    first.run(layer.send(name, {"n": 1}))
    waiting = first.begin(soon(layer, name))
    until(lambda: waits(valkey), "the other reader")
    assert not waiting.done()
    if then == "goes on":
        still.run_until_complete(asyncio.sleep(0.01))
    else:
        still.close()
    assert waiting.result(20) == {"n": 1}
    for n in range(5):
        first.run(layer.send(name, {"n": n}))
        assert first.run(soon(layer, name)) == {"n": n}
    assert layer.counters == {}


def test_a_wait_left_behind_swallows_nothing(
    layer: RedisChannelLayer, valkey: Server, still: Any, threads: list[LoopThread]
) -> None:
    """Who waits on the same channel in a loop that runs has the messages."""
    first, second = threads
    name = still.run_until_complete(layer.new_channel())
    left = still.create_task(layer.receive(name))
    still.run_until_complete(asyncio.sleep(0))
    before = waits(valkey)
    (inbox,) = layer._mailboxes.owners.inboxes()
    for thread in first, second, first:
        waiting = thread.begin(soon(layer, name))
        until(lambda: inbox.waiting == 2, "both waits")
        until(lambda: waits(valkey) and not waits(valkey) & before, "the other reader")
        thread.run(layer.send(name, {"n": 1}))
        assert waiting.result(20) == {"n": 1}
    first.run(layer.send(name, {"n": 2}))
    until(lambda: layer.receive_buffer, "the message")
    assert still.run_until_complete(asyncio.wait_for(left, 10)) == {"n": 2}
    assert layer.counters == {}


def test_what_a_wait_left_behind_could_have_had(
    layer: RedisChannelLayer, valkey: Server, still: Any, threads: list[LoopThread]
) -> None:
    """It is there for anybody, before that loop is closed and after."""
    first, _ = threads
    before = waits(valkey)
    name, other = (still.run_until_complete(layer.new_channel()) for _ in range(2))
    left = still.create_task(layer.receive(name))
    still.run_until_complete(asyncio.sleep(0))
    reading = first.begin(soon(layer, other))  # so that this loop takes over
    until(lambda: waits(valkey) and not waits(valkey) & before, "the other reader")
    for n in range(3):
        first.run(layer.send(name, {"n": n}))
    until(lambda: len(layer.receive_buffer.get(name, ())) == 3, "the messages")
    assert first.run(soon(layer, name)) == {"n": 0}
    still.close()
    assert [first.run(soon(layer, name))["n"] for _ in range(2)] == [1, 2]
    first.run(layer.send(other, {}))
    assert reading.result(20) == {}
    assert layer.counters == {}
    left._log_destroy_pending = False


def test_what_came_just_before_the_end_of_its_loop(layer: RedisChannelLayer) -> None:
    """A task was given a message, and never ran again."""
    loop = asyncio.SelectorEventLoop()  # uvloop goes on for a moment when stopped
    name = loop.run_until_complete(layer.new_channel())
    left = loop.create_task(layer.receive(name))
    loop.run_until_complete(asyncio.sleep(0))

    async def tell_and_stop() -> None:
        layer._mailboxes.put(None, [name], {"n": 1}, None, loop)
        loop.stop()

    loop.create_task(tell_and_stop())
    loop.run_forever()
    assert not left.done()
    loop.close()
    left._log_destroy_pending = False  # type: ignore[attr-defined]
    assert asyncio.run(soon(layer, name)) == {"n": 1}
    del left
    gc.collect()
    assert layer.receive_buffer == layer.counters == {}


def test_an_error_is_told_once(
    layer: RedisChannelLayer, still: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often Redis refuses: calls would pile up in a loop that stands still."""
    name = still.run_until_complete(layer.new_channel())
    waiting = still.create_task(layer.receive(name))
    still.run_until_complete(asyncio.sleep(0))
    (inbox,) = layer._mailboxes.owners.inboxes()
    calls: list[Any] = []
    call = still.call_soon_threadsafe
    with monkeypatch.context() as patch:
        patch.setattr(
            still, "call_soon_threadsafe", lambda *a: calls.append(a) or call(*a)
        )
        for _ in range(10):
            layer._mailboxes.owners.refuse(
                inbox, lambda: errors.ResponseError("refused")
            )
    assert len(calls) == 1
    with pytest.raises(errors.ResponseError, match="refused"):
        still.run_until_complete(asyncio.wait_for(waiting, 10))
