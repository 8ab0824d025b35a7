"""A Pub/Sub layer in several event loops, and in a process that forks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import async_to_sync
from redis import exceptions as errors

from channels_redis_fast.pubsub import RedisPubSubChannelLayer as Layer
from support.forking import in_child, needs_fork
from support.layers import end, soon
from support.polling import eventually, until
from support.pubsubs import subscribed, subscribers
from support.servers import Server

ROOM = "asgi__group__room"


@pytest.fixture
def loops() -> Iterator[list[asyncio.AbstractEventLoop]]:
    """Two event loops, closed at the end."""
    made = [asyncio.new_event_loop() for _ in range(2)]
    yield made
    for loop in made:
        loop.close()


@contextlib.contextmanager
def running(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Runs a loop in a thread."""
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def test_made_in_one_loop_and_received_in_another(
    valkey: Server, loops: list[asyncio.AbstractEventLoop]
) -> None:
    one, two = loops
    layer = Layer(hosts=[valkey.url])
    name = one.run_until_complete(layer.new_channel())
    one.run_until_complete(layer.group_add("room", name))
    # The first loop stands still: nobody listens there.
    with running(two):
        for n in range(2):
            waiting = asyncio.run_coroutine_threadsafe(layer.receive(name), two)
            until(
                lambda: layer._mailboxes.owners.waiting_loops(inbox(layer)), "the wait"
            )
            assert subscribers(valkey, name) == 2
            # At once, not by the layer's clock.
            until(lambda: subscribers(valkey, ROOM) == 2, "the group's", timeout=0.5)
            asyncio.run(layer.send(name, {"n": n}))
            assert waiting.result(10) == {"n": n}
        waiting = asyncio.run_coroutine_threadsafe(layer.receive(name), two)
        asyncio.run(layer.group_send("room", {"n": 3}))
        assert waiting.result(10) == {"n": 3}
    # When the first goes on, it lets go, and nothing comes twice.
    one.run_until_complete(layer.send(name, {"n": 4}))
    two.run_until_complete(layer.send(name, {"n": 5}))
    got = [two.run_until_complete(asyncio.wait_for(layer.receive(name), 10))["n"]]
    got += [two.run_until_complete(asyncio.wait_for(layer.receive(name), 10))["n"]]
    assert got == [4, 5]


def inbox(layer: Layer) -> object:
    """The one inbox of a layer."""
    (one,) = layer._mailboxes.owners.inboxes()
    return one


def test_a_loop_that_ends_hands_over(
    valkey: Server, loops: list[asyncio.AbstractEventLoop]
) -> None:
    one, two = loops
    layer = Layer(hosts=[valkey.url])
    with running(one):
        made = asyncio.run_coroutine_threadsafe(layer.new_channel(), one)
        name = made.result(10)
        added = asyncio.run_coroutine_threadsafe(layer.group_add("room", name), one)
        added.result(10)
        with running(two):
            waiting = asyncio.run_coroutine_threadsafe(layer.receive(name), two)
            until(
                lambda: layer._mailboxes.owners.waiting_loops(inbox(layer)), "the wait"
            )
            before = valkey.client().client_list(_type="pubsub")
            assert len(before) == 1
            asyncio.run_coroutine_threadsafe(layer.close_pools(), one).result(10)

            def moved() -> bool:
                now = valkey.client().client_list(_type="pubsub")
                names = {name, ROOM}
                others = [c["id"] for c in now] != [before[0]["id"]]
                return len(now) == 1 and others and subscribed(valkey) == names

            until(moved, "the other loop to listen")
            asyncio.run(layer.group_send("room", {"n": 1}))
            assert waiting.result(10) == {"n": 1}


def test_a_busy_loop_takes_a_group_over(
    valkey: Server, loops: list[asyncio.AbstractEventLoop]
) -> None:
    """Nobody waits there when the loop that listened to the group ends."""
    one, two = loops
    layer = Layer(hosts=[valkey.url])
    names = []
    with running(one), running(two):
        for loop in loops:
            made = asyncio.run_coroutine_threadsafe(layer.new_channel(), loop)
            names.append(made.result(10))
            added = layer.group_add("room", names[-1])
            asyncio.run_coroutine_threadsafe(added, loop).result(10)
        asyncio.run_coroutine_threadsafe(layer.close_pools(), one).result(10)
        until(lambda: not subscribers(valkey, ROOM), "the end of the first loop's")
        waiting = asyncio.run_coroutine_threadsafe(layer.receive(names[1]), two)
        until(lambda: subscribers(valkey, ROOM), "the second loop's")
        asyncio.run(layer.group_send("room", {"n": 1}))
        assert waiting.result(10) == {"n": 1}
        asyncio.run_coroutine_threadsafe(layer.close_pools(), two).result(10)


def test_who_waited_in_loops_that_were_closed_is_forgotten(valkey: Server) -> None:
    layer = Layer(hosts=[valkey.url], expiry=0.2)

    async def begin() -> asyncio.Task[dict[str, object]]:
        name = await layer.new_channel()
        receiving = asyncio.create_task(layer.receive(name))
        await asyncio.sleep(0)
        return receiving

    for _ in range(3):
        loop = asyncio.new_event_loop()
        task = loop.run_until_complete(begin())
        loop.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        del task
    gc.collect()

    async def others_go_on() -> None:
        await layer.new_channel()
        await eventually(lambda: not len(layer._mailboxes), "them to be forgotten")
        assert not len(layer._table)
        await layer.close_pools()

    asyncio.run(others_go_on())


def test_a_thread_that_waits_in_a_loop_that_was_closed(
    valkey: Server, loops: list[asyncio.AbstractEventLoop]
) -> None:
    layer = Layer(hosts=[valkey.url])
    with ThreadPoolExecutor(1) as threads:
        with running(loops[0]):
            made = asyncio.run_coroutine_threadsafe(layer.new_channel(), loops[0])
            name = made.result(10)
            waiting = threads.submit(layer.sync.receive, name)
            until(
                lambda: layer._mailboxes.owners.waiting_loops(inbox(layer)), "the wait"
            )
        loops[0].close()
        with pytest.raises(errors.ConnectionError, match="ended"):
            waiting.result(10)
    gc.collect()  # which says that the task was pending


def test_a_loop_that_is_closed_under_a_receive(
    valkey: Server,
    loops: list[asyncio.AbstractEventLoop],
    caplog: pytest.LogCaptureFixture,
) -> None:
    layer, loop = Layer(hosts=[valkey.url]), loops[0]

    async def wait() -> None:
        name = await layer.new_channel()
        waiting.append(asyncio.create_task(layer.receive(name)))
        await asyncio.sleep(0)

    waiting: list[asyncio.Task[object]] = []
    loop.run_until_complete(wait())
    loop.close()
    assert not [one for one in caplog.messages if "in callback" in one]
    waiting.clear()
    gc.collect()  # which says that the task was pending


def test_a_join_from_a_loop_of_its_own(
    valkey: Server, loops: list[asyncio.AbstractEventLoop]
) -> None:
    layer = Layer(hosts=[valkey.url])
    valkey.client().config_resetstat()
    with running(loops[0]):
        made = asyncio.run_coroutine_threadsafe(layer.new_channel(), loops[0])
        name = made.result(10)
        waiting = asyncio.run_coroutine_threadsafe(layer.receive(name), loops[0])
        async_to_sync(layer.group_add)("room", name)
        assert subscribers(valkey, ROOM) == 1
        # Not there first, and here when that loop had ended.
        stats = valkey.client().info("commandstats")
        assert stats["cmdstat_subscribe"]["calls"] == 2
        async_to_sync(layer.group_send)("room", {"n": 1})
        assert waiting.result(10) == {"n": 1}
        async_to_sync(layer.group_discard)("room", name)
        until(lambda: subscribed(valkey) == {name}, "the end")


def test_a_join_given_up_while_the_other_loop_is_busy(
    valkey: Server, loops: list[asyncio.AbstractEventLoop]
) -> None:
    layer, busy, go = Layer(hosts=[valkey.url]), threading.Event(), threading.Event()

    def block() -> None:
        busy.set()
        go.wait(10)

    async def give_up() -> None:
        joining = asyncio.create_task(layer.group_add("room", name))
        await asyncio.sleep(0)
        await end(joining)
        await layer.close_pools()

    with running(loops[0]):
        made = asyncio.run_coroutine_threadsafe(layer.new_channel(), loops[0])
        name = made.result(10)
        loops[0].call_soon_threadsafe(block)
        assert busy.wait(10)
        asyncio.run(give_up())
        go.set()
        joining = layer.group_add("after", name)
        asyncio.run_coroutine_threadsafe(joining, loops[0]).result(10)
        assert subscribed(valkey) == {name, "asgi__group__after"}


def test_a_stopped_loop_is_replaced(
    valkey: Server, loops: list[asyncio.AbstractEventLoop]
) -> None:
    one, two = loops
    layer = Layer(hosts=[valkey.url])
    with running(two):
        with running(one):
            made = asyncio.run_coroutine_threadsafe(layer.new_channel(), one)
            name = made.result(10)
            waiting = asyncio.run_coroutine_threadsafe(layer.receive(name), two)
            until(
                lambda: layer._mailboxes.owners.waiting_loops(inbox(layer)), "the wait"
            )
            # So that the second has a clock of the layer's.
            sent = asyncio.run_coroutine_threadsafe(layer.send("worker", {}), two)
            sent.result(10)
        until(lambda: subscribers(valkey, name) == 2, "the second to take over")
        asyncio.run(layer.send(name, {"n": 1}))
        assert waiting.result(10) == {"n": 1}


def test_asyncio_run_again_and_again(valkey: Server) -> None:
    layer = Layer(hosts=[valkey.url])
    name = asyncio.run(layer.new_channel())

    async def talk(n: int) -> object:
        waiting = asyncio.ensure_future(layer.receive(name))
        await layer.group_add("room", name)
        await layer.group_send("room", {"n": n})
        return await asyncio.wait_for(waiting, 10)

    for n in range(5):
        assert asyncio.run(talk(n)) == {"n": n}
    assert not subscribed(valkey)


def test_who_takes_what_waits_is_subscribed(
    valkey: Server, loops: list[asyncio.AbstractEventLoop]
) -> None:
    """In a loop after one that stands still or ended, and when pools were closed."""
    layer = Layer(hosts=[valkey.url])
    standing, other = loops

    async def leave(others: int) -> None:
        """Something waits when this loop comes to rest; others subscribed before."""
        before = others + bool(layer._table.loop_of(name))
        await eventually(lambda: subscribers(valkey, name) == before, "the end of one")
        reading = asyncio.ensure_future(soon(layer, name))
        await eventually(lambda: subscribers(valkey, name) > others, "the wait")
        for n in range(3):
            await layer.send(name, {"n": n})
        assert await reading == {"n": 0}
        await eventually(lambda: layer._mailboxes.snapshot().get(name, ())[1:], "both")

    async def go_on() -> None:
        assert await soon(layer, name) == {"n": 1}
        valkey.client().publish(name, layer.serialize({"n": 3}))
        assert [(await soon(layer, name))["n"] for _ in "23"] == [2, 3]

    async def close_and_go_on() -> None:
        await leave(1)
        await layer.close_pools()
        await go_on()

    name = standing.run_until_complete(layer.new_channel())
    standing.run_until_complete(leave(0))
    other.run_until_complete(go_on())
    asyncio.run(leave(2))
    other.close()
    asyncio.run(go_on())
    asyncio.run(close_and_go_on())


@needs_fork
def test_a_fork_has_a_layer_of_its_own(valkey: Server) -> None:
    layer = Layer(hosts=[valkey.url])
    loop = asyncio.new_event_loop()
    name = loop.run_until_complete(layer.new_channel())

    async def child() -> bytes:
        own = await layer.new_channel()
        await layer.group_add("room", own)
        await layer.group_send("room", {"text": "child"})
        got = await asyncio.wait_for(layer.receive(own), 10)
        await layer.send(name, {"text": "to the parent"})
        return str(got["text"]).encode()

    assert in_child(lambda: asyncio.run(child())) == b"child"
    got = loop.run_until_complete(asyncio.wait_for(layer.receive(name), 10))
    assert got == {"text": "to the parent"}
    loop.close()


def test_a_message_at_the_last_moment_stays(
    valkey: Server, loops: list[asyncio.AbstractEventLoop]
) -> None:
    """A thread's short timeouts, and a loop that is busy when they are over."""
    loop, count = loops[0], 300
    got: list[int] = []
    layer = Layer(hosts=[valkey.url], capacity=1000)

    async def busy() -> None:
        while len(got) < count:
            time.sleep(0.002)  # noqa: ASYNC251
            await asyncio.sleep(0.001)

    def send_all() -> None:
        for n in range(count):
            layer.sync.send(name, {"n": n})
            time.sleep(random.uniform(0.002, 0.006))

    with running(loop):
        made = asyncio.run_coroutine_threadsafe(layer.new_channel(), loop)
        name = made.result(10)
        asyncio.run_coroutine_threadsafe(busy(), loop)
        sending = threading.Thread(target=send_all)
        sending.start()
        deadline = time.monotonic() + 20
        while len(got) < count and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                got.append(layer.sync.receive(name, 0.004)["n"])
        sending.join()
        assert got == list(range(count))
        asyncio.run_coroutine_threadsafe(layer.close_pools(), loop).result(10)
    layer.sync.close()
