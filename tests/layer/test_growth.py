"""Twice as many channels cost twice as much, not four times; few things at a time.

What counts is the lines of the package that run, and what the server was asked: both
are the same on any machine.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import FrameType
from typing import Any

import pytest
from redis import exceptions as errors

import channels_redis_fast
from support.layers import end
from support.polling import eventually
from support.pubsubs import subscribed
from support.servers import Server, kept
from support.syncing import KINDS, accepted, blocking

FEW = 150
MOST = 2.5  # times the lines for twice the number
PACKAGE = os.path.dirname(channels_redis_fast.__file__)
HELLO = {"type": "hello"}

both = pytest.mark.parametrize("kind", ["core", "pubsub"])


class Steps:
    """Counts the lines of the package that this thread runs meanwhile."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Steps:
        self._former = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *about: object) -> None:
        sys.settrace(self._former)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        self.count += 1
        return self._trace


# Gets a layer, its server, how many, and what counts from when it is told to.
Work = Callable[[Any, Server, int, Steps], Awaitable[None]]


async def cost(
    kind: str, server: Server, work: Work, count: int, **options: Any
) -> int:
    """How many lines some work takes."""
    server.client().flushall()
    layer, steps = KINDS[kind](hosts=[server.url], **options), Steps()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(layer.close_pools)
        await work(layer, server, count, steps)
    return steps.count


async def check_growth(kind: str, server: Server, work: Work, **options: Any) -> None:
    """Work for many takes as much for each as work for few."""
    await cost(kind, server, work, 10, **options)  # what is done once
    few = await cost(kind, server, work, FEW, **options)
    many = await cost(kind, server, work, 2 * FEW, **options)
    assert few > FEW  # it was seen
    assert many < MOST * few, f"{few} lines for {FEW}, {many} for {2 * FEW}"


async def make(layer: Any, count: int, group: str = "room") -> list[str]:
    """So many channels, all in a group."""
    names = [await layer.new_channel() for _ in range(count)]
    await asyncio.gather(*(layer.group_add(group, name) for name in names))
    return names


async def wait_on(layer: Any, names: list[str]) -> list[asyncio.Task[Any]]:
    """A task for each channel that waits on it."""
    tasks = [asyncio.create_task(layer.receive(name)) for name in names]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def answer(call: Awaitable[None]) -> Exception | None:
    """What a call raises."""
    try:
        await call
    except errors.ConnectionError as error:
        return error
    return None


def test_steps_are_seen() -> None:
    """Also those of a loop within a line."""
    text = "def run(n):\n    return [x for x in range(n)]\n"
    space: dict[str, Any] = {}
    exec(compile(text, os.path.join(PACKAGE, "none.py"), "exec"), space)
    found = []
    for count in (10, 1010):
        with Steps() as steps:
            space["run"](count)
        found.append(steps.count)
    assert found[1] - found[0] >= 1000


@both
async def test_group_add_of_many(kind: str, valkey: Server) -> None:
    async def work(layer: Any, server: Server, count: int, steps: Steps) -> None:
        with steps:
            names = await make(layer, count)
        assert len(set(names)) == count

    await check_growth(kind, valkey, work)


@both
async def test_flush(kind: str, valkey: Server) -> None:
    async def work(layer: Any, server: Server, count: int, steps: Steps) -> None:
        names = await make(layer, count)
        with steps:
            await layer.flush()
        assert names

    await check_growth(kind, valkey, work)


@both
async def test_the_end_of_many_channels(kind: str, valkey: Server) -> None:
    async def work(layer: Any, server: Server, count: int, steps: Steps) -> None:
        names = await make(layer, count)
        kept = await make(layer, 1, "other")
        with steps:
            names.clear()
            gc.collect()
            await eventually(lambda: len(layer._mailboxes) == 1, "their end")
            left = {"asgi:group:other"} if kind == "core" else {kept[0], OTHER}
            look = keys if kind == "core" else subscribed
            await eventually(lambda: look(server) == left, "them to leave")

    await check_growth(kind, valkey, work, expiry=0.2)


OTHER = "asgi__group__other"


def keys(server: Server) -> set[str]:
    return {key.decode() for key in kept(server.client())}


@both
async def test_close_pools_while_many_wait(kind: str, valkey: Server) -> None:
    async def work(layer: Any, server: Server, count: int, steps: Steps) -> None:
        names = await make(layer, count)
        tasks = await wait_on(layer, names)
        with steps:
            await layer.close_pools()
            await layer.send(names[-1], HELLO)
            assert await tasks[-1] == HELLO
        await end(*tasks)

    await check_growth(kind, valkey, work)


@both
async def test_receivers_of_copied_names(kind: str, valkey: Server) -> None:
    async def work(layer: Any, server: Server, count: int, steps: Steps) -> None:
        begin = (await layer.new_channel())[: -16 if kind == "core" else -32]
        names = [begin + uuid.uuid4().hex for _ in range(count)]
        with steps:
            tasks = [asyncio.create_task(layer.receive(name)) for name in names]
            await eventually(lambda: len(layer._mailboxes) >= count, "their channels")
            if kind == "pubsub":
                await eventually(lambda: subscribed(server) >= {*names}, "them")
            for name in names:
                await layer.send(name, HELLO)
            await asyncio.gather(*tasks)

    await check_growth(kind, valkey, work)


@both
async def test_a_tick_with_nothing_to_do(kind: str, valkey: Server) -> None:
    """It looks at no channel that nobody uses."""

    async def work(layer: Any, server: Server, count: int, steps: Steps) -> None:
        held, ending = await make(layer, count), await make(layer, count)
        ending.clear()
        gc.collect()
        here = layer._loops.engine()
        here._tick()
        with steps:
            here._tick()
        assert len(layer._mailboxes) == 2 * count
        assert held

    assert await cost(kind, valkey, work, 2 * FEW) < 2 * FEW


@both
async def test_callers_for_whom_there_is_no_answer(kind: str, server: Server) -> None:
    """Each that gives up lets the others be."""

    async def work(layer: Any, server: Server, count: int, steps: Steps) -> None:
        server.pause()
        try:
            with steps:
                sends = (layer.send(f"worker{n}", HELLO) for n in range(count))
                found = await asyncio.gather(*sends, return_exceptions=True)
            assert all(isinstance(one, errors.ConnectionError) for one in found)
        finally:
            server.resume()
        # Until nothing is under way.
        while await answer(layer.send("after", HELLO)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    await check_growth(kind, server, work, command_timeout=0.3)


async def test_what_is_taken_beside_what_is_refused(valkey: Server) -> None:
    async def work(layer: Any, server: Server, count: int, steps: Steps) -> None:
        await layer.send("first", HELLO)
        server.client().script_flush()
        calls = []
        for n in range(count):
            calls.append(layer.send(f"worker{n}", HELLO))
            calls.append(layer.group_discard("room", f"worker{n}"))
        with steps:
            await asyncio.gather(*calls)

    await check_growth("core", valkey, work)


async def test_followers_that_read_again(valkey: Server) -> None:
    """Each that catches up lets the others be."""

    async def work(layer: Any, server: Server, count: int, steps: Steps) -> None:
        names = [await layer.new_channel() for _ in range(count)]
        await asyncio.gather(*(layer.group_join("room", name) for name in names))
        for _ in range(2):
            await layer.group_send("room", HELLO)
        apart = layer._replays._groups["room"]._apart
        await eventually(lambda: len(apart) == count, "them to fall behind")
        with steps:
            for name in names:
                await layer.receive(name)
            await eventually(lambda: not apart, "them to catch up")

    await check_growth("pubsub", valkey, work, capacity=1, history={"room": (9, 60)})


# Few things at a time


def asked(server: Server) -> dict[str, int]:
    """How often the server ran each command."""
    stats = server.client().info("commandstats")
    return {name[len("cmdstat_") :]: stat["calls"] for name, stat in stats.items()}


@both
async def test_normal_channels_in_turn_share_connections(
    kind: str, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle reader's goes to the next one, or is closed after a while."""
    async with AsyncExitStack() as stack:
        layer = KINDS[kind](hosts=[valkey.url], group_expiry=0.4)
        stack.push_async_callback(layer.close_pools)
        before = accepted(valkey)
        for n in range(60):
            await layer.send(f"reply{n}", HELLO)
            assert await layer.receive(f"reply{n}") == HELLO
        assert accepted(valkey) - before < 30
        monkeypatch.setattr("channels_redis_fast.runtime.engine._LONGEST_IDLE", 0.0)
        monkeypatch.setattr("channels_redis_fast.client.spare._LONGEST", 0.0)
        await eventually(lambda: len(valkey.clients()) <= 2, "the end of the idle")
        await layer.send("reply0", HELLO)
        assert await layer.receive("reply0") == HELLO


async def test_who_ended_leaves_together(valkey: Server) -> None:
    """One command for each group, not one for each of its members."""
    async with AsyncExitStack() as stack:
        layer = KINDS["core"](hosts=[valkey.url], expiry=0.2)
        stack.push_async_callback(layer.close_pools)
        names = await make(layer, FEW, "room") + await make(layer, FEW, "other")
        valkey.client().config_resetstat()
        names.clear()
        gc.collect()
        await eventually(lambda: not kept(valkey.client()), "them to leave")
        # Their clock may come to some of them before the others.
        assert asked(valkey)["zrem"] <= 4


async def test_nobody_leaves_while_redis_is_away(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = KINDS["core"](hosts=[server.url], expiry=0.2)
    names = await make(layer, FEW)
    here = layer._loops.engine()
    server.kill()
    await eventually(lambda: here.shards[0].health.is_down, "the loss to be seen")
    tried: list[Any] = []
    monkeypatch.setattr(here, "run_all", tried.append)
    names.clear()
    gc.collect()
    await eventually(lambda: not len(layer._mailboxes), "the channels to end")
    await asyncio.sleep(3 * here._tick_every)
    assert layer._memberships.refreshes_due
    assert not tried
    monkeypatch.undo()
    server.start()
    await eventually(lambda: not layer._memberships.refreshes_due, "them to leave")
    await layer.close_pools()


@both
async def test_channels_end_in_portions(
    kind: str, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between which the event loop goes on."""
    portion = FEW // 10
    monkeypatch.setattr("channels_redis_fast.mailboxes.registry._PORTION", portion)
    layer = KINDS[kind](hosts=[valkey.url], expiry=0.2)
    names = await make(layer, FEW)
    sizes = [len(layer._mailboxes)]
    names.clear()
    gc.collect()
    deadline = time.monotonic() + 10
    while sizes[-1] and time.monotonic() < deadline:
        await asyncio.sleep(0)
        sizes.append(len(layer._mailboxes))
    assert not sizes[-1]
    ends = [before - after for before, after in itertools.pairwise(sizes)]
    assert max(ends) <= 2 * portion
    await layer.close_pools()


# A script's text


async def test_a_forgotten_script_s_text_is_sent_once(valkey: Server) -> None:
    async with AsyncExitStack() as stack:
        layer = KINDS["core"](hosts=[valkey.url])
        stack.push_async_callback(layer.close_pools)
        await layer.send("first", HELLO)
        valkey.client().script_flush()
        valkey.client().config_resetstat()
        sends = (layer.send(f"worker{n}", HELLO) for n in range(FEW))
        await asyncio.gather(*sends)
        assert asked(valkey)["eval"] == 1


def test_a_forgotten_script_s_text_is_sent_once_by_blocking_calls(
    valkey: Server,
) -> None:
    with blocking("core", valkey.url) as layer:
        pairs = [(f"worker{n}", HELLO) for n in range(FEW)]
        assert not any(layer.sync.send_many(pairs))
        valkey.client().script_flush()
        valkey.client().config_resetstat()
        assert not any(layer.sync.send_many(pairs))
        assert asked(valkey)["eval"] == 1
