"""Points about channels: names, order, single delivery, expiry."""

from __future__ import annotations

import asyncio
import string
from typing import Any

from asgiref.sync import async_to_sync
from channels import exceptions

from .points import point
from .steps import empty, fresh, numbers, patience, refuses, running, send, silent, soon

CHARACTERS = "ASCII letters, ASCII numerical digits, periods (.), dashes (-) and ..."
BAD_NAMES = (
    "",
    "a b",
    "é",
    "٣",
    "a/b",
    "a:b",
    "a\n",
    "a!b!c",
    None,
    5,
    b"bytes",
    ["a"],
)


# What a layer has


@point("Specification Details", "must provide ...: MessageTooLarge, ... ChannelFull")
async def exceptions_as_attributes(one: Any, other: Any) -> None:
    for name in ("ChannelFull", "MessageTooLarge"):
        assert issubclass(getattr(one, name), getattr(exceptions, name))


@point("Specification Details", "extensions, a list of unicode string names")
async def extensions_named(one: Any, other: Any) -> None:
    assert isinstance(one.extensions, list)
    assert set(one.extensions) <= {"groups", "flush"}


@point("Asynchronous Support", "using the asgiref.sync.async_to_sync wrapper")
async def works_by_async_to_sync(one: Any, other: Any) -> None:
    name = await one.new_channel()
    for n in range(3):
        await asyncio.to_thread(async_to_sync(other.send), name, {"n": n})
    assert await numbers(one, name, 3) == [0, 1, 2]


# Names


@point("Channels", f"a unicode string name consisting only of {CHARACTERS}")
async def channel_names(one: Any, other: Any) -> None:
    letters = fresh(string.ascii_letters + string.digits + ".-_")
    for name in (letters, fresh("0"), fresh("-"), fresh("."), fresh("_")):
        await other.send(name, {"to": name})
        assert await soon(one, name) == {"to": name}


@point("Channels", f"a unicode string name consisting only of {CHARACTERS}")
async def bad_channel_names(one: Any, other: Any) -> None:
    for name in BAD_NAMES:
        assert await refuses(one.send(name, {"type": "test"})), f"sent to {name!r}"
        assert await refuses(one.receive(name)), f"received from {name!r}"


@point("Channel Semantics", "Have a maximum name length of at least 100 bytes")
async def names_of_100(one: Any, other: Any) -> None:
    name = fresh("n" * 87)
    assert len(name) == 100
    await other.send(name, {"type": "test"})
    assert await soon(one, name) == {"type": "test"}


# Process-specific channels


@point("Channels", "Process-specific channel names contain an exclamation mark (!)")
async def a_mark_in_new_channels(one: Any, other: Any) -> None:
    remote, mark, local = (await one.new_channel()).partition("!")
    assert mark
    assert "!" not in remote + local


@point("Specification Details", "returns a new process-specific channel")
async def new_channels_are_new(one: Any, other: Any) -> None:
    names = [await layer.new_channel() for layer in (one, other) for _ in range(100)]
    assert len(set(names)) == len(names)
    assert all(type(str(name)) is str and len(name) < 100 for name in names)


@point("Channels", "distribute incoming requests to the appropriate client sockets")
async def each_gets_its_own(one: Any, other: Any) -> None:
    names = [await one.new_channel() for _ in range(10)]
    for n in range(3):
        for name in names:
            await other.send(name, {"to": str(name), "n": n})
    for name in reversed(names):
        for n in range(3):
            assert await soon(one, name) == {"to": str(name), "n": n}


@point(
    "Channel Semantics",
    "Preserve ordering of messages perfectly with only a single reader and writer",
    capacity=1000,
)
async def order(one: Any, other: Any) -> None:
    """Of what waited, and of what comes while it is read."""
    name = await one.new_channel()
    for n in range(50):
        await other.send(name, {"n": n})
    assert await numbers(one, name, 50) == list(range(50))
    async with running(numbers(one, name, 300)) as [reading]:
        for n in range(300):
            await send(other, name, {"n": n})
        assert await reading == list(range(300))


@point("Channel Semantics", "Never deliver a message more than once", capacity=1000)
async def once_per_process(one: Any, other: Any) -> None:
    """Several wait in the process; each message reaches one of them."""
    name = await one.new_channel()
    received: list[int] = []
    await _read_all([one, one, one], other, name, received)
    await other.send(name, {"n": -1})
    assert (await soon(one, name))["n"] == -1
    assert sorted(received) == list(range(100))


# Normal channels


@point("Channels", "Channels are a first-in, first out queue")
async def waits_to_be_read(one: Any, other: Any) -> None:
    name = fresh()
    for n in range(10):
        await other.send(name, {"n": n})
    assert sorted(await numbers(one, name, 10)) == list(range(10))


@point(
    "Channels", "only a single reader should get each written message", capacity=1000
)
async def once_per_fleet(one: Any, other: Any) -> None:
    """Readers of both processes share the messages."""
    name, received = fresh(), list[int]()
    await _read_all([one, other, one, other], other, name, received)
    assert await empty(one, name)
    assert sorted(received) == list(range(100))


async def _read_all(
    readers: list[Any], sender: Any, name: str, received: list[int]
) -> None:
    """Send 100 numbers to readers, who read until they have them all."""
    complete = asyncio.Event()

    async def read(layer: Any) -> None:
        while True:
            received.append((await layer.receive(name))["n"])
            if len(set(received)) == 100:
                complete.set()

    async with running(*map(read, readers)):
        for n in range(100):
            await send(sender, name, {"n": n})
        try:
            await asyncio.wait_for(complete.wait(), patience.get())
        except asyncio.TimeoutError:
            text = f"{len(set(received))} of 100 arrived"
            raise AssertionError(text) from None


# Time


@point(
    "Channels",
    "Messages should expire after a set time sitting unread in a channel",
    must=False,
    waits=True,
    expiry=1,
)
async def messages_expire(one: Any, other: Any) -> None:
    name, worker = await one.new_channel(), fresh()
    for channel in (name, worker):
        await other.send(channel, {"type": "old"})
    await asyncio.sleep(2)
    assert await silent(one, name), "an old message of a process-specific channel"
    assert await empty(one, worker), "an old message of a normal channel"


@point("Persistence", "messages only as long as the message expiry time", waits=True)
async def messages_stay(one: Any, other: Any) -> None:
    """Unread for a moment, they are there."""
    name, worker = await one.new_channel(), fresh()
    for channel in (name, worker):
        await other.send(channel, {"type": "kept"})
    await asyncio.sleep(1)
    for channel in (name, worker):
        assert await soon(one, channel) == {"type": "kept"}
