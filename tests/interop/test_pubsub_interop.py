"""Two processes, one with channels_redis, one with this package: both ways."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.peers import INCUMBENT_PUBSUB, PUBSUB
from support.polling import eventually
from support.pubsubs import subscribers
from support.servers import Server

COUNT = 1_000
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "encrypted": {"symmetric_encryption_keys": ["first", "second"]},
    "json": {"serializer_format": "json"},
    "prefix": {"prefix": "other"},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    ("here", "there"),
    [(PUBSUB, INCUMBENT_PUBSUB), (INCUMBENT_PUBSUB, PUBSUB)],
    ids=["to the incumbent", "from the incumbent"],
)
@pytest.mark.slow
async def test_a_thousand_messages(
    start_peer: Any, valkey: Server, here: str, there: str, options: dict[str, Any]
) -> None:
    def config(layer: str) -> dict[str, Any]:
        room = {"capacity": 3 * COUNT} if layer == PUBSUB else {}
        return {"hosts": [valkey.url], **options, **room}

    sender = await start_peer(here, config(here))
    receiver = await start_peer(there, config(there))
    name, member = [await receiver.new_channel() for _ in range(2)]
    await receiver.group_add("room", member)
    await receiver.group_add("room", name)
    await until_joined(sender, receiver, member, name)
    reading = receiver.begin("collect", [name, member], 3 * COUNT, timeout=30)
    await asyncio.gather(
        sender.burst(name, COUNT, senders=10, sender="direct"),
        sender.burst("room", COUNT, group=True, senders=10, sender="group"),
    )
    got = (await reading)["received"]
    numbers = list(range(COUNT))
    assert sorted(n for kind, n in got[name] if kind == "direct") == numbers
    assert sorted(n for kind, n in got[name] if kind == "group") == numbers
    assert sorted(n for _, n in got[member]) == numbers


async def until_joined(sender: Any, receiver: Any, *names: str) -> None:
    """The incumbent's `group_add` returns before Redis has it."""
    await sender.group_send("room", {"type": "first"})
    for name in names:
        while True:
            try:
                await receiver.receive(name, timeout=0.2)
                break
            except Exception as error:
                if "Timeout" not in str(error):
                    raise
                await sender.group_send("room", {"type": "again"})


@pytest.mark.parametrize(
    "readers", [(PUBSUB, INCUMBENT_PUBSUB), (INCUMBENT_PUBSUB, PUBSUB)], ids=["1", "2"]
)
async def test_broadcast_normal_channels(
    start_peer: Any, valkey: Server, readers: tuple[str, str]
) -> None:
    peers = []
    for layer in readers:
        ours = {"normal_channels": "broadcast"} if layer == PUBSUB else {}
        peers.append(await start_peer(layer, {"hosts": [valkey.url], **ours}))
    waiting = [peer.begin("receive", "worker", timeout=20) for peer in peers]
    await eventually(lambda: subscribers(valkey, "worker") == 2, "both to listen")
    await peers[0].send("worker", {"type": "t"})
    assert await asyncio.gather(*waiting) == [{"type": "t"}] * 2
