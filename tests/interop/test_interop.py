"""A process with channels_redis and one with this package, on the same Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from support.peers import CORE, INCUMBENT_CORE, Peer, incumbent_hosts
from support.servers import Server, kept

COUNT = 1_000
KEYS = ["the one that encrypts", b"an older one"]
FORMATS = {
    "msgpack": {"serializer_format": "msgpack"},
    "json": {"serializer_format": "json"},
    "msgpack-encrypted": {"symmetric_encryption_keys": KEYS},
    "json-encrypted": {
        "serializer_format": "json",
        "symmetric_encryption_keys": KEYS,
    },
}
Pair = tuple[Peer, Peer]


def with_pairs(*quick: str) -> Any:
    """With a pair of each format; `make test` does with some."""
    params = [
        pytest.param(options, id=name, marks=() if name in quick else pytest.mark.slow)
        for name, options in FORMATS.items()
    ]
    return pytest.mark.parametrize("pair", params, indirect=True)


# All that the formats differ in, once.
in_formats = with_pairs("json-encrypted")


@pytest.fixture
async def pair(
    request: pytest.FixtureRequest, valkey: Server, start_peer: Callable[..., Any]
) -> Pair:
    """Our process and the incumbent's, with the same options."""
    hosts = incumbent_hosts(valkey.url)
    options = {"capacity": COUNT, **request.param}
    ours = await start_peer(CORE, {"hosts": [valkey.url], **options})
    return ours, await start_peer(INCUMBENT_CORE, {"hosts": hosts, **options})


async def _exchange(
    sender: Peer,
    target: str,
    readers: list[tuple[Peer, str]],
    *,
    group: bool = False,
    count: int = COUNT,
) -> None:
    """All the messages to a channel or a group; each reader must get all, in order."""
    collecting = [
        reader.begin("collect", name, count, timeout=60) for reader, name in readers
    ]
    sent = await sender.burst(target, count, group=group, patient=True, sender="us")
    assert sent["failed"] == {}
    for collected in await asyncio.gather(*collecting):
        assert collected["received"] == [["us", n] for n in range(count)]
        assert collected["errors"] == {}


@in_formats
@pytest.mark.parametrize("count", [200, pytest.param(COUNT, marks=pytest.mark.slow)])
async def test_sends(pair: Pair, count: int) -> None:
    """To channels of a process and to normal ones, both ways at once."""
    ways = []
    for number, (sender, reader) in enumerate((pair, pair[::-1])):
        for name in f"worker{number}", await reader.new_channel():
            ways.append(_exchange(sender, name, [(reader, name)], count=count))
    await asyncio.gather(*ways)


@in_formats
@pytest.mark.slow
async def test_group_sends(pair: Pair) -> None:
    """Two groups with members in both processes; one is sent to by each."""
    ours, theirs = pair

    async def one_way(sender: Peer, group: str) -> None:
        members = [(reader, await reader.new_channel(group)) for reader in pair]
        # Each also joins for the other: it is the channel that is a member.
        for (_, name), joiner in zip(members, reversed(pair), strict=True):
            await joiner.group_add(group, name)
        await _exchange(sender, group, members, group=True)

    await asyncio.gather(one_way(ours, "room.ours"), one_way(theirs, "room.theirs"))


@with_pairs("msgpack")
async def test_a_normal_channel_in_a_group(pair: Pair) -> None:
    for sender, reader in (pair, pair[::-1]):
        await sender.group_add("room", "worker")
        await sender.group_send("room", {"type": "t", "n": 1})
        assert await reader.receive("worker", 10) == {"type": "t", "n": 1}


@with_pairs("msgpack")
async def test_leaving_and_flushing(pair: Pair, valkey: Server) -> None:
    for one, other in (pair, pair[::-1]):
        name = await one.new_channel()
        await one.group_add("room", name)
        await other.group_discard("room", name)
        await other.group_send("room", {"type": "t"})
        assert not valkey.client().exists("asgi:group:room")
        await one.group_add("room", name)
        await other.send(name, {"type": "t"})
        await other.flush()
        assert kept(valkey.client()) == []


async def test_other_keys_do_not_fit(
    valkey: Server, start_peer: Callable[..., Any]
) -> None:
    """What can't be decrypted is dropped, and the next message is read."""
    options = {"hosts": [valkey.url], "capacity": COUNT}
    stranger = await start_peer(
        INCUMBENT_CORE, {**options, "symmetric_encryption_keys": ["another"]}
    )
    ours = await start_peer(CORE, {**options, "symmetric_encryption_keys": KEYS})
    for name in await ours.new_channel(), "worker":
        await stranger.send(name, {"type": "t", "n": 1})
        await ours.send(name, {"type": "t", "n": 2})
        assert await ours.receive(name, 10) == {"type": "t", "n": 2}
    await ours.logged("unreadable")
