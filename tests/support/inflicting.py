"""How each fault is inflicted on a scene while a room is full of traffic.

Whatever may cost a message is surrounded by `room.outage()`: outside nothing may be
lost. Each returns when everybody hears everybody again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from support.accounting import GROUP, NORMAL, Room
from support.clusters import slot_of
from support.polling import eventually
from support.proxy import Flow, Proxy
from support.refusals import Refusal

# A scene (see scenes.py), the room, and how many times.
Inflict = Callable[[Any, Room, int], Awaitable[None]]

# Of the layers: command_timeout, and how many messages may wait for a process, or on
# the normal channel.
TIMEOUT, CAPACITY = 0.5, 20
WAIT = 1.0  # seconds that a reader blocks at a time
SHORT, LONG = 0.2, 2.4  # seconds: less than the timeout, and more than all of these
# Where Redis refuses: a command_timeout that ends in the middle of a pause between two
# attempts, and a trouble that ends before the third one.
PATIENCE, BRIEF = 0.7, 0.05
PARCEL = 200_000  # bytes: more than the server's buffer for a client may hold

# The server


async def killed_empty(scene: Any, room: Room, times: int) -> None:
    """kill -9, and an empty server a while later."""
    for _ in range(times):
        async with room.outage():
            await asyncio.to_thread(scene.server.kill)
            await asyncio.sleep(SHORT)
            await asyncio.to_thread(scene.server.start)


async def killed_durable(scene: Any, room: Room, times: int) -> None:
    """kill -9, and a server that reads its append-only file."""
    for _ in range(times):
        async with room.outage():
            await asyncio.to_thread(scene.server.kill)
            await asyncio.to_thread(scene.server.start, empty=False)


async def stopped_short(scene: Any, room: Room, times: int) -> None:
    """SIGSTOP, and SIGCONT before anybody gives the connection up."""
    for _ in range(times):
        scene.server.pause()
        await asyncio.sleep(SHORT)
        scene.server.resume()
        await room.goes_on()


async def stopped_long(scene: Any, room: Room, times: int) -> None:
    """SIGSTOP, and SIGCONT when everybody has given up."""
    for _ in range(times):
        before = room.refused("ConnectionError")
        async with room.outage():
            scene.server.pause()
            await asyncio.sleep(LONG)
            scene.server.resume()
        assert room.refused("ConnectionError") > before


def clients_killed(which: str) -> Inflict:
    """CLIENT KILL of "all" connections, of those that read, or of the others."""

    def chosen(client: dict[str, str]) -> bool:
        reads = client["cmd"] in ("bzpopmin", "zpopmin") or client["sub"] != "0"
        return which == "all" or reads is (which == "readers")

    async def inflict(scene: Any, room: Room, times: int) -> None:
        admin = scene.server.client()
        for _ in range(times):
            async with room.outage():
                found = [c for c in admin.client_list() if c["cmd"] != "client|list"]
                killed = [
                    admin.client_kill_filter(_id=one["id"])
                    for one in found
                    if chosen(one)
                ]
                assert any(killed)

    return inflict


def asleep(seconds: float) -> Inflict:
    """DEBUG SLEEP, which stops the server from within."""

    async def inflict(scene: Any, room: Room, times: int) -> None:
        admin = scene.server.client()
        for _ in range(times):
            if seconds < TIMEOUT:
                await asyncio.to_thread(admin.execute_command, "DEBUG SLEEP", seconds)
                await room.goes_on()
                continue
            async with room.outage():
                await asyncio.to_thread(admin.execute_command, "DEBUG SLEEP", seconds)

    return inflict


async def scripts_flushed(scene: Any, room: Room, times: int) -> None:
    """SCRIPT FLUSH."""
    for _ in range(times):
        scene.server.client().script_flush()
        await room.readers[0].group_add("other", room.channels[0])
        await room.goes_on()


async def buffers_full(scene: Any, room: Room, times: int) -> None:
    """A reply too large for the output buffer: the server ends the connection."""
    admin, half = scene.server.client(), PARCEL // 2
    # Else Valkey doesn't count large values, as it makes no copy of them.
    admin.config_set("min-string-size-avoid-copy-reply", 2 * PARCEL)
    limits = f"normal {half} 0 0 pubsub {half} 0 0"
    admin.config_set("client-output-buffer-limit", limits)

    def ended() -> int:
        return int(admin.info("stats")["client_output_buffer_limit_disconnections"])

    for _ in range(times):
        for route in "direct", "group", "normal":
            before = ended()
            async with room.outage():
                room.send_parcel(route, PARCEL)
                await eventually(lambda n=before: ended() > n, "the server to end it")


async def memory_full(scene: Any, room: Room, times: int) -> None:
    """The memory is full, and nothing may be evicted."""
    admin = scene.server.client()
    admin.config_set("maxmemory-policy", "noeviction")
    for _ in range(times):
        before = room.refused("OutOfMemoryError")
        admin.config_set("maxmemory", 1)
        await eventually(
            lambda n=before: room.refused("OutOfMemoryError") > n + 50, "refusals"
        )
        admin.config_set("maxmemory", 0)
        await room.goes_on()


def refusing(refusal: Refusal, error: str) -> Inflict:
    """The server refuses: briefly, which no call tells, and until calls raise it."""

    async def inflict(scene: Any, room: Room, times: int) -> None:
        for _ in range(times):
            before = room.refused(error)
            for seconds in BRIEF, LONG:
                steps = refusal(scene.server)
                await asyncio.to_thread(next, steps)
                await asyncio.sleep(seconds)
                await asyncio.to_thread(next, steps, None)
                await room.goes_on()
                assert (room.refused(error) > before) is (seconds > PATIENCE)
        # Few calls end while an attempt is under way; no connection ends with many.
        assert room.refused("ConnectionError") < room.refused(error)

    return inflict


# The network


def cut(reset: bool) -> Inflict:
    """All connections are closed, or reset."""

    async def inflict(scene: Any, room: Room, times: int) -> None:
        for _ in range(times):
            async with room.outage():
                assert scene.readers.cut(reset=reset)
                assert scene.senders.cut(reset=reset)

    return inflict


async def batches_cut(scene: Any, room: Room, times: int) -> None:
    """The connections of the readers end with as many messages on them as may be."""
    proxy, keys = scene.readers, process_keys(room)
    count = scene.server.client().zcard
    for _ in range(times):
        async with room.outage():
            proxy.requests.hold()
            await eventually(lambda: all(count(k) == CAPACITY for k in keys), "a batch")
            proxy.replies.hold()
            proxy.requests.release()
            await asyncio.gather(
                *(eventually(lambda k=k: count(k) < CAPACITY, "it") for k in keys)
            )
            proxy.cut()
            proxy.replies.release()


async def replies_to_readers_cut(scene: Any, room: Room, times: int) -> None:
    """A connection of the readers ends after byte 0, 1, 2, ... of what it gets."""
    await cut_at_each(scene.readers, scene.readers.replies, room, times, costly=True)


async def requests_of_readers_cut(scene: Any, room: Room, times: int) -> None:
    """A connection of the readers ends in the middle of what they ask."""
    await cut_at_each(scene.readers, scene.readers.requests, room, times, costly=True)


async def replies_to_senders_cut(scene: Any, room: Room, times: int) -> None:
    """A message was stored, and the answer ends in the middle."""
    await cut_at_each(scene.senders, scene.senders.replies, room, times, costly=False)


async def requests_of_senders_cut(scene: Any, room: Room, times: int) -> None:
    """A message ends in the middle."""
    await cut_at_each(scene.senders, scene.senders.requests, room, times, costly=False)


async def cut_at_each(
    proxy: Proxy, flow: Flow, room: Room, times: int, costly: bool
) -> None:
    """Cuts after each number of bytes; whether that may cost messages."""
    for count in range(times):
        async with room.outage() if costly else room.going_on():
            accepted = proxy.accepted
            flow.cut_after(count)
            await eventually(lambda n=accepted: proxy.accepted > n, "a new connection")


async def delayed(scene: Any, room: Room, times: int) -> None:
    """Everything takes longer."""
    flows = flows_of(scene)
    for flow in flows:
        flow.delay = SHORT / 10
    for _ in range(times):
        await room.goes_on()
    for flow in flows:
        flow.delay = 0.0


async def split(scene: Any, room: Room, times: int) -> None:
    """Every byte comes alone."""
    flows = flows_of(scene)
    for flow in flows:
        flow.split = 1
    for _ in range(times):
        await room.goes_on()
    for flow in flows:
        flow.split = None


def flows_of(scene: Any) -> list[Flow]:
    """What passes the proxies in each direction."""
    proxies = scene.readers, scene.senders
    return [flow for proxy in proxies for flow in (proxy.requests, proxy.replies)]


def half_closed(side: str) -> Inflict:
    """One side is told that no more will come."""

    async def inflict(scene: Any, room: Room, times: int) -> None:
        for _ in range(times):
            async with room.outage():
                for proxy in scene.readers, scene.senders:
                    proxy.half_close(side)

    return inflict


async def readers_unanswered_short(scene: Any, room: Room, times: int) -> None:
    """Nothing comes to the readers for a while."""
    for _ in range(times):
        scene.readers.replies.hold()
        await asyncio.sleep(SHORT)
        scene.readers.replies.release()
        await room.goes_on()


async def readers_unanswered(scene: Any, room: Room, times: int) -> None:
    """Nothing comes to the readers until they connect anew."""
    for _ in range(times):
        accepted = scene.readers.accepted
        async with room.outage():
            scene.readers.replies.hold()
            await eventually(
                lambda n=accepted: scene.readers.accepted >= n + 2, "both to give up"
            )
            scene.readers.replies.release()


async def senders_unanswered(scene: Any, room: Room, times: int) -> None:
    """Messages are stored, and nobody says so."""
    for _ in range(times):
        before = room.refused("ConnectionError")
        scene.senders.replies.hold()
        await eventually(
            lambda n=before: room.refused("ConnectionError") > n, "senders to give up"
        )
        scene.senders.replies.release()
        await room.goes_on()


async def replies_corrupted(scene: Any, room: Room, times: int) -> None:
    """A byte of what the readers get is another one."""
    flow = scene.readers.replies
    for count in range(times):
        async with room.outage():
            end = flow.passed + count
            flow.corrupt_after(count)
            await eventually(lambda n=end: flow.passed > n, "the byte")


# Sentinels and Clusters


async def primary_killed(scene: Any, room: Room, times: int) -> None:
    """kill -9 of the primary; the Sentinels make another one."""
    for turn in range(times):
        async with room.outage():
            old = scene.sentinels.primary
            await asyncio.to_thread(scene.sentinels.failover)
        if turn < times - 1:
            await asyncio.to_thread(scene.sentinels.revive, old)


async def primary_demoted(scene: Any, room: Room, times: int) -> None:
    """The Sentinels make the replica the primary, and the primary its replica."""
    for _ in range(times):
        async with room.outage():
            await asyncio.to_thread(scene.sentinels.switch)


async def node_killed(scene: Any, room: Room, times: int) -> None:
    """kill -9 of a primary that something is on; its replica takes its place."""
    for key in itertools.islice(itertools.cycle(keys_of(room)), times):
        old = scene.cluster.node_of(key)
        async with room.outage():
            await asyncio.to_thread(scene.cluster.kill_primary_of, key)
        await asyncio.to_thread(scene.cluster.revive, old)


async def nodes_swapped(scene: Any, room: Room, times: int) -> None:
    """CLUSTER FAILOVER: a primary and its replica change roles, nobody dies."""
    for key in itertools.islice(itertools.cycle(keys_of(room)), times):
        async with room.outage():
            await asyncio.to_thread(scene.cluster.failover, key)


async def slots_moved(scene: Any, room: Room, times: int) -> None:
    """Slots move to another node and back, step by step, with messages in them."""
    for _ in range(times):
        for key in keys_of(room):
            source = scene.cluster.node_of(key)
            others = [one for one in scene.cluster.primaries if one is not source]
            for target in others[0], source:
                # What is published is lost until it is subscribed at the new owner.
                async with room.outage() if is_published(room) else room.going_on():
                    steps = scene.cluster.migration(slot_of(key), target)
                    while await asyncio.to_thread(next, steps, None):
                        await room.goes_on()


def is_published(room: Room) -> bool:
    """Whether messages to a process are not stored."""
    return not process_keys(room)


def process_keys(room: Room) -> list[str]:
    """The keys of the processes' messages; none where they are published."""
    parts = [channel.partition("!") for channel in room.channels]
    return [f"asgi{key}!" for key, mark, _ in parts if mark]


def keys_of(room: Room) -> list[str]:
    """The names at Redis of a process's messages, the group, the normal channel."""
    if is_published(room):
        return [room.channels[0], f"asgi__group__{GROUP}", f"asgi{NORMAL}"]
    return [process_keys(room)[0], f"asgi:group:{GROUP}", f"asgi{NORMAL}"]
