"""Consumers come and go: what stays of them, and what the busy ones keep."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer

from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.mailboxes.mailbox import ChannelName, Mailbox, MailboxGroup
from channels_redis_fast.polling.poller import KeyPoller
from channels_redis_fast.polling.process_key import ProcessKeyReader
from support.layers import end, nothing, opened, soon
from support.polling import eventually
from support.servers import Server, kept

COUNT = 10_000
BATCH = 500
CAPACITY = 10 * BATCH


class Broken(Exception):
    """What a consumer of a test raises."""


class Visitor(AsyncConsumer):  # type: ignore[misc]
    """Joins the group, answers, and ends as it is told to."""

    living: weakref.WeakSet[Visitor] = weakref.WeakSet()

    async def begin(self, message: dict[str, Any]) -> None:
        self.living.add(self)
        await self.channel_layer.group_add("lobby", self.channel_name)
        await self.send({"type": "joined"})

    async def hello(self, message: dict[str, Any]) -> None:
        await self.send({"type": "answer", "n": message["n"]})

    async def stop(self, message: dict[str, Any]) -> None:
        raise StopConsumer

    async def fail(self, message: dict[str, Any]) -> None:
        raise Broken


async def noop() -> None:
    """Instead of what closes old database connections."""


class Visit:
    """A consumer that runs, seen from its client."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.got: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent.put_nowait({"type": "begin"})
        self.task = asyncio.ensure_future(
            Visitor()({"type": "test"}, self.sent.get, self.got.put)
        )

    async def answer(self) -> dict[str, Any]:
        """What the consumer sends next."""
        return await asyncio.wait_for(self.got.get(), 20)


async def visits(layer: RedisChannelLayer, count: int) -> list[Visit]:
    """Consumers that joined the group and got a message through it."""
    found = [Visit() for _ in range(count)]
    for visit in found:
        assert (await visit.answer())["type"] == "joined"
    await layer.group_send("lobby", {"type": "hello", "n": 1})
    for visit in found:
        assert await visit.answer() == {"type": "answer", "n": 1}
    return found


async def cancelled(visits: list[Visit]) -> None:
    await end(*(visit.task for visit in visits))


async def stopped(visits: list[Visit]) -> None:
    for visit in visits:
        visit.sent.put_nowait({"type": "stop"})
    await asyncio.gather(*(visit.task for visit in visits))


async def failed(visits: list[Visit]) -> None:
    for visit in visits:
        visit.sent.put_nowait({"type": "fail"})
    tasks = (visit.task for visit in visits)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Broken}


@pytest.fixture
def consumers(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Gives a layer to the consumers."""

    def use(layer: RedisChannelLayer) -> None:
        monkeypatch.setattr("channels.consumer.get_channel_layer", lambda alias: layer)
        monkeypatch.setattr("channels.consumer.aclose_old_connections", noop)

    return use


def _is_left(found: object) -> bool:
    return type(found) in (
        ChannelName,
        Mailbox,
        MailboxGroup,
        ProcessKeyReader,
        KeyPoller,
        Visit,
    )


def _there() -> set[int]:
    """What there is of a layer's objects, by identity."""
    gc.collect()  # what ends in a task is free a step of the loop later
    return {id(found) for found in gc.get_objects() if _is_left(found)}


@pytest.fixture
def others() -> set[int]:
    """The objects of layers of other tests, which an error's traceback may keep."""
    return _there()


async def check_nothing_is_left(
    layer: RedisChannelLayer, server: Server, others: set[int]
) -> None:
    """No object of the consumers in this process, and no key of theirs in Redis."""
    await asyncio.sleep(0)  # this very step of the loop was called with their ends
    gc.collect()
    assert not len(Visitor.living)
    await eventually(lambda: not len(layer._mailboxes), "the channels to end")
    await eventually(lambda: not layer._mailboxes.owners.inboxes(), "the reader to end")
    assert not len(layer._memberships)
    await eventually(lambda: not kept(server.client()), "the keys to go")
    await eventually(lambda: _there() <= others, "all to go")
    assert not layer._mailboxes._lifetimes._ending
    assert not layer._mailboxes._lifetimes._released


@pytest.mark.parametrize("ending", [cancelled, stopped, failed])
@pytest.mark.slow
async def test_consumers_leave_nothing(
    valkey: Server, consumers: Callable[[Any], None], others: set[int], ending: Any
) -> None:
    async with opened(valkey.url, expiry=1, capacity=CAPACITY) as layer:
        consumers(layer)
        for _ in range(COUNT // BATCH):
            await ending(await visits(layer, BATCH))
        await check_nothing_is_left(layer, valkey, others)


@pytest.mark.slow
async def test_consumers_of_closed_loops_leave_nothing(
    valkey: Server,
    consumers: Callable[[Any], None],
    others: set[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loops that are closed over the heads of consumers that wait."""
    # Channels can't cancel in a closed loop what it wants to cancel at the end.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    async with opened(valkey.url, expiry=1, capacity=CAPACITY) as layer:
        consumers(layer)

        def work() -> None:
            loop = asyncio.new_event_loop()
            # asyncio says, of each, that its task was destroyed while it was pending.
            loop.set_exception_handler(lambda loop, context: None)
            found = loop.run_until_complete(visits(layer, BATCH))
            assert not any(visit.task.done() for visit in found)
            loop.close()

        for _ in range(COUNT // BATCH):
            thread = threading.Thread(target=work)
            thread.start()
            await eventually(lambda: not thread.is_alive(), "the thread", timeout=30)  # noqa: B023
        await layer.send("worker", {"n": 1})
        assert await soon(layer, "worker") == {"n": 1}
        await check_nothing_is_left(layer, valkey, others)


# Those that live


async def test_a_busy_consumer_keeps_everything(valkey: Server) -> None:
    """Busy for three times `expiry`: it gets what was sent in the last one."""
    expiry = 0.5
    options = {"expiry": expiry, "group_expiry": 1.0, "capacity": 1000}
    async with opened(valkey.url, **options) as layer, opened(valkey.url) as other:
        name, neighbour = await layer.new_channel(), await layer.new_channel()
        for member in name, neighbour:
            await layer.group_add("room", member)
        loop = asyncio.get_running_loop()

        async def read() -> None:
            while True:
                await layer.receive(neighbour)

        reading = asyncio.create_task(read())
        sent: dict[int, float] = {}
        began = loop.time()
        while loop.time() < began + 3 * expiry:
            sent[len(sent)] = loop.time()
            await other.group_send("room", {"n": len(sent) - 1})
            await asyncio.sleep(0.01)
        last = len(sent)
        await other.group_send("room", {"n": last})
        now = loop.time()
        got = []
        while not got or got[-1] != last:
            got.append((await soon(layer, name))["n"])
        await end(reading)
        assert got == list(range(got[0], last + 1))
        # What was under way when its time came may be there or not.
        assert abs(now - expiry - sent[got[0]]) < 0.2


async def test_a_name_that_is_waited_on_lives(valkey: Server) -> None:
    async with opened(valkey.url, expiry=0.1, group_expiry=0.4) as layer:
        name = str(await layer.new_channel()).encode().decode()
        waiting = asyncio.create_task(soon(layer, name))
        await layer.group_add("room", name)
        gc.collect()
        await asyncio.sleep(0.6)
        await layer.group_send("room", {"n": 1})
        assert await waiting == {"n": 1}
        # And for `expiry` after: the copy is enough to receive again.
        await layer.group_send("room", {"n": 2})
        assert await soon(layer, name) == {"n": 2}
        await eventually(lambda: not len(layer._mailboxes), "the channel to end")
        key = "asgi:group:room"
        await eventually(lambda: not valkey.client().exists(key), "the member to go")


async def test_a_name_that_always_has_messages_lives(valkey: Server) -> None:
    """Who reads never waits, and is there all the same."""
    loop = asyncio.get_running_loop()
    async with opened(valkey.url, expiry=1, capacity=1_000) as layer:
        name = str(await layer.new_channel()).encode().decode()
        await layer.group_add("room", name)
        gc.collect()
        await layer.group_send("room", {"n": 0})
        assert await soon(layer, name) == {"n": 0}  # from now on they come
        until = loop.time() + 2.5
        sent = received = 1
        while loop.time() < until:
            while sent < received + 20:
                await layer.group_send("room", {"n": sent})
                sent += 1
            await eventually(lambda: layer._mailboxes.snapshot(), "messages")
            assert await soon(layer, name) == {"n": received}
            received += 1
        await layer.group_send("room", {"n": sent})
        while received <= sent:
            assert await soon(layer, name) == {"n": received}
            received += 1


async def test_a_name_used_again_after_its_end(valkey: Server) -> None:
    """A copy that outlived its channel begins a new one, with no groups."""
    async with opened(valkey.url, expiry=0.1) as layer:
        name = str(await layer.new_channel()).encode().decode()
        await layer.group_add("room", name)
        await eventually(lambda: not len(layer._mailboxes), "the channel to end")
        waiting = asyncio.create_task(soon(layer, name))
        await asyncio.sleep(0)
        await layer.group_add("room", name)
        await asyncio.sleep(0.3)
        await layer.group_send("room", {"n": 1})
        assert await waiting == {"n": 1}


@pytest.mark.parametrize("refresh", [True, False], ids=["refreshed", "not refreshed"])
async def test_living_members(valkey: Server, refresh: bool) -> None:
    options = {"group_expiry": 1, "refresh_groups": refresh}
    async with opened(valkey.url, **options) as layer, opened(valkey.url) as other:
        name, gone = await layer.new_channel(), await layer.new_channel()
        foreign = await other.new_channel()
        for member in name, gone, foreign:
            await layer.group_add("room", member)
        await other.group_discard("room", gone)
        for _ in range(3):
            await asyncio.sleep(0.6)
            # No `group_send` in between: the key itself must live on.
            found = valkey.client().zrange("asgi:group:room", 0, -1)
        assert {*map(bytes.decode, found)} == ({name, foreign} if refresh else set())
        await layer.group_send("room", {"n": 1})
        if refresh:
            assert await soon(layer, name) == {"n": 1}
        assert await nothing(layer, name)
        assert await nothing(layer, gone)
        assert await nothing(other, foreign)


async def test_messages_for_those_that_ended(valkey: Server) -> None:
    async with opened(valkey.url, expiry=0.2) as layer, opened(valkey.url) as other:
        stays, goes = await layer.new_channel(), await layer.new_channel()
        copy = str(goes).encode().decode()
        for name in stays, copy:
            await other.group_add("room", name)
        del goes, name
        gc.collect()
        await eventually(lambda: len(layer._mailboxes) == 1, "the channel to end")
        await other.group_send("room", {"n": 1})
        assert await soon(layer, stays) == {"n": 1}
        assert layer.receive_buffer == {}
        assert layer.counters == {"for no channel of this process": 1}


async def test_connections_closed_as_the_last_channel_ends(valkey: Server) -> None:
    """Who stops reading for the channels that ended doesn't pass for reading on."""
    async with opened(valkey.url, expiry=0.1) as layer:
        await nothing(layer, await layer.new_channel())
        receivers = layer._loops.engine()._inboxes
        while receivers:  # noqa: ASYNC110 - the very turn in which it is told to stop
            await asyncio.sleep(0)
        (inbox,) = layer._mailboxes.owners.inboxes()
        assert inbox.reader is not None
        await layer.close_pools()
        assert await nothing(layer, await layer.new_channel())
