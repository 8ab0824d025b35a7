"""Points about traffic: much of it, readers that are cancelled, full channels."""

from __future__ import annotations

import asyncio
from typing import Any

from .points import NotApplicable, point
from .steps import fill, fresh, numbers, running, send, soon

RATE = "a success rate of at least 99.99% is expected under normal circumstances"
COUNT = 10_000
SENDERS = 20


# Nothing is lost


@point("Channel Semantics", RATE, must=False, capacity=2 * COUNT)
async def ten_thousand_arrive(one: Any, other: Any) -> None:
    name = await one.new_channel()

    async def write() -> None:
        for n in range(COUNT // SENDERS):
            await send(other, name, {"n": n})

    async with running(*(write() for _ in range(SENDERS))):
        for _ in range(COUNT - 1):
            await soon(one, name)


@point("Channel Semantics", RATE, must=False)
async def cancelled_receives_lose_nothing(one: Any, other: Any) -> None:
    """Receives are cancelled before, while and after a message comes."""
    for name in (await one.new_channel(), fresh()):
        for turn in range(20):
            async with running(one.receive(name)) as [waiting]:
                for _ in range(turn % 10):
                    await asyncio.sleep(0.0005)
                await other.send(name, {"n": turn})
                for _ in range(turn // 2):
                    await asyncio.sleep(0)
            last = await soon(one, name) if waiting.cancelled() else waiting.result()
            assert last == {"n": turn}


@point("Channel Semantics", RATE, must=False, capacity=1000)
async def neighbours_come_and_go(one: Any, other: Any) -> None:
    """A steady reader gets all, whatever other readers of its process do."""
    steady = await one.new_channel()

    async def come_and_go() -> None:
        while True:
            async with running(one.receive(await one.new_channel())):
                await asyncio.sleep(0.002)

    neighbours = [come_and_go() for _ in range(5)]
    async with running(numbers(one, steady, 300), *neighbours) as [reading, *_]:
        for n in range(300):
            await send(other, steady, {"n": n})
        assert await reading == list(range(300))


@point(
    "Approximate Global Ordering",
    "avoid a scenario where a message doesn't get received purely because another "
    "channel is busy",
    must=False,
    capacity=1000,
)
async def quiet_beside_busy(one: Any, other: Any) -> None:
    """One message gets through while a slow neighbour always has some to read."""
    busy, quiet = await one.new_channel(), await one.new_channel()
    for _ in range(500):
        await other.send(busy, {"type": "busy"})

    async def trickle() -> None:
        for _ in range(5000):  # some layers can't be cancelled for sure
            await one.receive(busy)
            await other.send(busy, {"type": "busy"})
            await asyncio.sleep(0)  # others' turn, if neither had to wait

    async with running(trickle()):
        await other.send(quiet, {"type": "quiet"})
        assert await soon(one, quiet) == {"type": "quiet"}


@point("Channel Semantics", "Never block on message send", capacity=10)
async def send_never_blocks(one: Any, other: Any) -> None:
    """Nobody reads, and `send` returns or raises `ChannelFull`."""
    for name in (await one.new_channel(), fresh()):
        for _ in range(5):
            await fill(other, name)


# Capacity


@point(
    "Capacity",
    "When a channel is at or over capacity, trying to send() ... may raise ChannelFull",
    must=False,
    capacity=5,
)
async def full_channels_refuse(one: Any, other: Any) -> None:
    """Not before it is full; what was taken arrives."""
    name = fresh()
    taken = await fill(other, name)
    if taken == 60:
        raise NotApplicable("channels are never full")
    assert taken >= 5, f"was full with {taken} messages"
    assert sorted(await numbers(one, name, taken)) == list(range(taken))


@point("Capacity", "wait until it empties out again", must=False, capacity=5)
async def room_when_read(one: Any, other: Any) -> None:
    name = fresh()
    taken = await fill(other, name)
    if taken == 60:
        raise NotApplicable("channels are never full")
    await numbers(one, name, taken)
    assert await fill(other, name) >= 5


@point(
    "Capacity",
    "Process-local channels must apply their capacity on the non-local part",
    capacity=5,
)
async def capacity_of_the_process(one: Any, other: Any) -> None:
    """When one channel of a process is full, the others of that part are."""
    first, second = await one.new_channel(), await one.new_channel()
    non_local, mark, _ = first.partition("!")
    if not mark or not second.startswith(f"{non_local}!"):
        raise NotApplicable("its channels share no non-local part")
    if await fill(other, first) == 60:
        raise NotApplicable("channels are never full")
    assert await fill(other, second) == 0


@point(
    "Capacity",
    "furthermore configurable per channel name or name prefix",
    must=False,
    capacity=50,
    channel_capacity={"small.*": 2},
)
async def capacity_by_name(one: Any, other: Any) -> None:
    if await fill(other, fresh(), 400) == 400:
        raise NotApplicable("channels are never full")
    assert await fill(other, fresh("large"), 40) == 40
    assert await fill(other, fresh("small"), 40) < 40


@point(
    "Capacity",
    "Sending to a group never raises ChannelFull; ... must silently drop the message",
    extension="groups",
    capacity=5,
)
async def full_members_miss_it(one: Any, other: Any) -> None:
    """Those that have room get it."""
    group = fresh("group")
    full, reading = await one.new_channel(), await other.new_channel()
    await one.group_add(group, full)
    await other.group_add(group, reading)
    for n in range(20):
        await one.group_send(group, {"n": n})
        if one is not other:
            assert await soon(other, reading) == {"n": n}
    assert 0 <= await soon_number(one, full) < 20


async def soon_number(layer: Any, channel: str) -> int:
    """The number of the next message."""
    return int((await soon(layer, channel))["n"])
