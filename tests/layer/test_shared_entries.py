"""How the layers hand out what several channels share, and how a wait for it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from channels_redis_fast.mailboxes.waiters import NOTHING, TaskWaiter, opened
from support.layers import soon
from support.servers import Server
from support.syncing import KINDS

HELLO = {"type": "hello", "list": [1]}


@pytest.fixture(params=KINDS)
async def layer(request: pytest.FixtureRequest, valkey: Server) -> AsyncIterator[Any]:
    found = KINDS[request.param](hosts=[valkey.url])
    yield found
    await found.close_pools()


async def wait(waiter: Any) -> Any:
    return await waiter


async def test_a_groups_message_is_one_entry(layer: Any) -> None:
    names = [await layer.new_channel() for _ in range(3)]
    for name in names[:2]:
        await layer.group_add("room", name)
    waiters = [layer._begin_receive(name, asyncio.get_running_loop()) for name in names]
    assert all(isinstance(waiter, TaskWaiter) for waiter in waiters)
    tasks = [asyncio.create_task(wait(waiter)) for waiter in waiters]
    await asyncio.sleep(0)
    await layer.group_send("room", HELLO)
    await layer.send(names[2], HELLO)
    first, second, alone = await asyncio.wait_for(asyncio.gather(*tasks), 10)
    assert first is second
    assert first[3] == {}
    assert alone[3] is None, "nobody shares it"
    messages = [opened(entry) for entry in (first, second, alone)]
    assert messages == [HELLO] * 3
    assert len({id(message["list"]) for message in messages}) == 3


async def test_a_nudged_wait_ends_with_nothing(layer: Any) -> None:
    """And the next one gets its message."""
    name = await layer.new_channel()
    waiter = layer._begin_receive(name, asyncio.get_running_loop())
    waiting = asyncio.create_task(wait(waiter))
    await asyncio.sleep(0)
    waiter.nudge()
    waiter.nudge()
    assert await asyncio.wait_for(waiting, 10) is NOTHING
    waiter.nudge()  # nobody waits: it must not end the next wait
    receiving = asyncio.create_task(soon(layer, name))
    await asyncio.sleep(0)
    await layer.send(name, HELLO)
    assert await receiving == HELLO


async def test_a_nudge_takes_no_message_away(layer: Any) -> None:
    """One that was given already comes, not nothing."""
    name = await layer.new_channel()
    waiter = layer._begin_receive(name, asyncio.get_running_loop())
    waiting = asyncio.create_task(wait(waiter))
    await asyncio.sleep(0)
    inbox = waiter.box.inbox
    layer._mailboxes.put(inbox, [name], HELLO, None, asyncio.get_running_loop())
    waiter.nudge()
    assert opened(await asyncio.wait_for(waiting, 10)) == HELLO


async def test_a_nudge_meets_a_message_of_another_thread(layer: Any) -> None:
    """One for which the waiter was called stays for who asks next."""
    name = await layer.new_channel()
    waiter = layer._begin_receive(name, asyncio.get_running_loop())
    waiting = asyncio.create_task(wait(waiter))
    await asyncio.sleep(0)
    put = layer._mailboxes.put
    thread = asyncio.get_running_loop().run_in_executor(
        None, put, waiter.box.inbox, [name], HELLO, None
    )
    while not waiter.is_called:
        pass
    waiter.nudge()
    assert await asyncio.wait_for(waiting, 10) is NOTHING
    await thread
    assert opened(layer._begin_receive(name, asyncio.get_running_loop())) == HELLO


async def test_a_nudged_wait_that_is_cancelled_gives_nothing_back(layer: Any) -> None:
    name = await layer.new_channel()
    waiter = layer._begin_receive(name, asyncio.get_running_loop())
    waiting = asyncio.create_task(wait(waiter))
    await asyncio.sleep(0)
    waiter.nudge()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await layer.send(name, HELLO)
    assert await soon(layer, name) == HELLO
    assert not any(layer.counters.values()), "nothing counts as dropped"


async def test_who_holds_no_channel_is_sent_to_receive(layer: Any) -> None:
    assert layer._begin_receive("nobody.made!this", asyncio.get_running_loop()) is None
