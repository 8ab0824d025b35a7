"""However a consumer ends, it does so as without the mixin, and leaves nothing."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from channels_redis_fast.consumers import FastDispatchMixin, broadcast
from support.consuming import Client, using
from support.polling import eventually
from support.servers import Server, kept

ROOM = "room"


class Broken(Exception):
    """What handlers and `receive` raise here."""


class Plain(AsyncJsonWebsocketConsumer):
    """Ends as it is told, by its client or by the room."""

    groups = [ROOM]

    async def connect(self) -> None:
        self.scope["made"].append(weakref.ref(self))
        await self.accept()

    async def receive_json(self, content: Any, **_: Any) -> None:
        await self.obey({"how": content})

    async def obey(self, event: Any) -> None:
        if event["how"] == "raise":
            raise Broken
        if event["how"] == "stop":
            raise StopConsumer
        if event["how"] == "hang":
            await self.send_json("hanging")
            await asyncio.Event().wait()


class Fast(FastDispatchMixin, Plain):
    """The same with the mixin."""

    @broadcast
    def blunder(event: Any) -> Any:
        raise Broken

    @broadcast
    def babble(event: Any) -> Any:
        return object()


async def tell(layer: Any, clients: list[Client], event: Any) -> None:
    await layer.group_send(ROOM, event)


async def by_handler(layer: Any, clients: list[Client], how: str) -> None:
    await layer.group_send(ROOM, {"type": "obey", "how": how})


async def by_client(layer: Any, clients: list[Client], how: str) -> None:
    for client in clients:
        client.text(f'"{how}"')


async def disconnect(layer: Any, clients: list[Client], how: str) -> None:
    for client in clients:
        client.disconnect()


async def receive_raises(layer: Any, clients: list[Client], how: str) -> None:
    for client in clients:
        client.say(Broken())


async def receive_stops(layer: Any, clients: list[Client], how: str) -> None:
    for client in clients:
        client.say(StopConsumer())


async def cancel(layer: Any, clients: list[Client], how: str) -> None:
    if how:
        await by_client(layer, clients, how)
        for client in clients:
            await client.was_sent(1)
    for client in clients:
        client.task.cancel()


async def cancel_all(layer: Any, clients: list[Client], how: str) -> None:
    """All tasks that a consumer has, too."""
    mine = {task for task in asyncio.all_tasks() if is_of_consumer(task)}
    assert len(mine) >= len(clients)
    for task in mine:
        task.cancel()


def is_of_layer(task: asyncio.Task[Any]) -> bool:
    return "receive" in repr(task.get_coro())


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])


def is_of_consumer(task: asyncio.Task[Any]) -> bool:
    return any(
        name in repr(task.get_coro()) for name in ("as_asgi", "ReceiveLoop", "Client.")
    )


async def all_at_once(layer: Any, clients: list[Client], how: str) -> None:
    for client in clients:
        client.disconnect()
    await layer.group_send(ROOM, {"type": "obey", "how": "nothing"})
    for client in clients:
        client.task.cancel()


async def say_nonsense(layer: Any, clients: list[Client], how: str) -> None:
    await layer.group_send(ROOM, {"type": how})


# What ends it; the exception that it ends with, if any.
ENDS: dict[str, tuple[Any, str, type[BaseException] | None]] = {
    "disconnect": (disconnect, "", None),
    "client raise": (by_client, "raise", Broken),
    "layer raise": (by_handler, "raise", Broken),
    "client stop": (by_client, "stop", None),
    "layer stop": (by_handler, "stop", None),
    "receive raises": (receive_raises, "", Broken),
    "receive stops": (receive_stops, "", None),
    "cancelled idle": (cancel, "", asyncio.CancelledError),
    "cancelled in a handler": (cancel, "hang", asyncio.CancelledError),
    "cancelled with all tasks": (cancel_all, "", asyncio.CancelledError),
    "no handler": (say_nonsense, "unheard.of", ValueError),
    "a private handler": (say_nonsense, "_send", ValueError),
}
OF_THE_MIXIN: dict[str, tuple[Any, str, type[BaseException] | None]] = {
    "a broadcast raises": (say_nonsense, "blunder", Broken),
    "a broadcast can't be encoded": (say_nonsense, "babble", TypeError),
}


@pytest.mark.parametrize("end", [*ENDS, *OF_THE_MIXIN])
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("core", 20),
        ("pubsub", 20),
        pytest.param("in-memory", 20, marks=pytest.mark.slow),
        pytest.param("core", 5_000, marks=pytest.mark.slow),
        pytest.param("pubsub", 500, marks=pytest.mark.slow),
    ],
)
async def test_nothing_is_left(kind: str, count: int, end: str, valkey: Server) -> None:
    # What is still in the mailbox of a consumer that ended goes after `expiry`.
    options = {} if kind == "in-memory" else {"expiry": 0.2 if count == 20 else 1}
    ending, how, expected = (ENDS | OF_THE_MIXIN)[end]
    made: list[Any] = []
    async with using(kind, valkey.url, **options) as layer:
        clients = [Client(Fast.as_asgi(), made=made) for _ in range(count)]
        for begin in range(0, count, 100):
            some = clients[begin : begin + 100]
            await asyncio.gather(*(client.connect() for client in some))
        await ending(layer, clients, how)
        for client in clients:
            assert type(await client.ended()) is (expected or type(None)), client
        assert not [task for task in asyncio.all_tasks() if is_of_consumer(task)]
        del clients, client
        some = []
        await eventually(lambda: not alive(made), "the end of all consumers")
        if kind != "in-memory":  # which keeps queues of consumers that ended
            boxes = layer._mailboxes
            await eventually(lambda: not len(boxes), "the end of all mailboxes")
            redis = valkey.client()
            await eventually(lambda: not kept(redis), "the end of all memberships")
            await eventually(
                lambda: redis.pubsub_channels() == [], "the end of subscriptions"
            )


def alive(made: list[Any]) -> int:
    gc.collect()
    return sum(ref() is not None for ref in made)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("base", [Plain, Fast])
async def test_it_ends_as_without_the_mixin(
    base: Any, end: str, valkey: Server
) -> None:
    ending, how, expected = ENDS[end]
    async with using("core", valkey.url) as layer:
        client = await Client(base.as_asgi(), made=[]).connect()
        await ending(layer, [client], how)
        assert type(await client.ended()) is (expected or type(None))
        # Channels itself leaves one when `receive` raises.
        await asyncio.gather(
            *(cancelled(task) for task in asyncio.all_tasks() if is_of_layer(task))
        )


@pytest.mark.parametrize("kind", ["core", "pubsub"])
async def test_all_at_once(kind: str, valkey: Server) -> None:
    """A disconnect, a message and a cancellation: no wake-up may be lost."""
    async with using(kind, valkey.url) as layer:
        for _ in range(10):
            clients = [Client(Fast.as_asgi(), made=[]) for _ in range(5)]
            await asyncio.gather(*(client.connect() for client in clients))
            await all_at_once(layer, clients, "")
            for client in clients:
                ended = await client.ended()
                assert ended is None or type(ended) is asyncio.CancelledError


async def test_both_sides_end_at_once(valkey: Server) -> None:
    """The handler's way counts, and nobody complains of the other."""

    class Consumer(FastDispatchMixin, Plain):
        async def hold(self, event: Any) -> None:
            holding.set()
            await go_on.wait()
            raise StopConsumer

    holding, go_on = asyncio.Event(), asyncio.Event()
    async with using("core", valkey.url) as layer:
        client = await Client(Consumer.as_asgi(), made=[]).connect()
        await layer.group_send(ROOM, {"type": "hold"})
        await holding.wait()
        client.say(Broken())
        await asyncio.sleep(0.01)
        go_on.set()
        assert await client.ended() is None
        del client
        gc.collect()
