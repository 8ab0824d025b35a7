"""What a layer does, whatever it is connected to: run on each kind of `hosts`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from redis import exceptions as errors

from channels_redis_fast.core import RedisChannelLayer as Layer
from support.layers import end, nothing, soon
from support.polling import eventually

# Gets two layers on the same hosts: two processes, as far as Redis sees.
Behaviour = Callable[[Layer, Layer], Awaitable[None]]


async def sends(one: Layer, other: Layer) -> None:
    """Messages arrive in order, before and after somebody waits for them."""
    name = await one.new_channel()
    for n in range(20):
        await other.send(name, {"n": n})
    assert [(await soon(one, name))["n"] for _ in range(20)] == list(range(20))
    waiting = asyncio.create_task(soon(one, name))
    await asyncio.gather(*(other.send(name, {"n": n}) for n in range(20, 40)))
    received = [(await waiting)["n"]]
    received += [(await soon(one, name))["n"] for _ in range(19)]
    assert received == list(range(20, 40))


async def normal(one: Layer, other: Layer) -> None:
    """A normal channel's messages go to one of its readers each."""
    received: list[int] = []

    async def read(layer: Layer) -> None:
        while True:
            received.append((await layer.receive("worker"))["n"])

    await one.send("worker", {"n": 0})
    reading = [asyncio.create_task(read(layer)) for layer in (one, other)]
    for n in range(1, 40):
        await other.send("worker", {"n": n})
    await eventually(lambda: len(received) >= 40, "the messages")
    await end(*reading)
    assert sorted(received) == list(range(40))
    assert await is_empty(one, "worker")


async def is_empty(layer: Layer, channel: str) -> bool:
    """Whether a normal channel is empty on every shard."""
    # Two for each shard, which come after what is there already.
    numbers = range(2 * layer.ring_size)
    for n in numbers:
        await layer.send(channel, {"last": n})
    received = [(await soon(layer, channel)).get("last") for _ in numbers]
    return set(received) == set(numbers)


async def groups(one: Layer, other: Layer) -> None:
    """Groups reach their members in all processes, and nobody else."""
    names = {layer: await layer.new_channel() for layer in (one, other)}
    for n in range(8):
        group = f"room{n}"
        for layer, name in names.items():
            await layer.group_add(group, name)
        await other.group_add(group, "worker")
        await one.group_send(group, {"n": n})
        for layer, name in names.items():
            assert await soon(layer, name) == {"n": n}
        assert await soon(one, "worker") == {"n": n}
        await one.group_discard(group, "worker")
        await one.group_discard(group, names[other])
        await other.group_send(group, {"n": -n})
        assert await soon(one, names[one]) == {"n": -n}
        assert await nothing(other, names[other])
    assert await is_empty(one, "worker")


async def flush(one: Layer, other: Layer) -> None:
    """Messages and groups go; who waits goes on waiting."""
    mine, theirs = await one.new_channel(), await other.new_channel()
    waiting = asyncio.create_task(soon(other, theirs))
    for n in range(8):
        await other.group_add(f"room{n}", mine)
        await other.send("worker", {"n": n})
        await other.send(mine, {"n": n})
    await one.flush()
    for n in range(8):
        await other.group_send(f"room{n}", {"n": n})
    assert await nothing(one, mine)
    assert await is_empty(other, "worker")
    await one.send(theirs, {"n": 1})
    assert await waiting == {"n": 1}


async def cancels(one: Layer, other: Layer) -> None:
    """A `receive` that was cancelled, at any moment, took no message with it."""
    for channel in (await one.new_channel(), "worker"):
        for turn in range(6):
            waiting = asyncio.create_task(one.receive(channel))
            for _ in range(turn):
                await asyncio.sleep(0.001)
            sending = asyncio.create_task(other.send(channel, {"n": turn}))
            if turn % 2:
                await sending
            await end(waiting)
            await sending
            if waiting.cancelled():
                assert await soon(one, channel) == {"n": turn}
            else:
                assert waiting.result() == {"n": turn}


async def until_it_works(layer: Layer, channel: str = "check") -> None:
    """Sends until the layer's back-off is over, and sees that it arrives."""
    deadline = asyncio.get_running_loop().time() + 10
    while True:
        try:
            await layer.send(channel, {"n": 1})
            break
        except errors.RedisError:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.01)
    assert await soon(layer, channel) == {"n": 1}


BEHAVIOURS: dict[str, Behaviour] = {
    function.__name__: function for function in (sends, normal, groups, flush, cancels)
}
