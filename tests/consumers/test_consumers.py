"""What Channels promises of consumers holds with `FastDispatchMixin`, too."""

from __future__ import annotations

import asyncio
import contextvars
from itertools import groupby
from typing import Any

import pytest
from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
)

from channels_redis_fast.consumers import FastDispatchMixin
from support.consuming import LAYERS, Client, connected, using
from support.polling import eventually
from support.servers import Server

who = contextvars.ContextVar[str]("who")


class Broken(Exception):
    """What a handler of a test raises."""


class Logger(FastDispatchMixin, AsyncJsonWebsocketConsumer):
    """Notes what it handles, and in which task; slowly."""

    groups = ["room"]

    async def connect(self) -> None:
        who.set("me")
        self.log: list[tuple[str, int]] = []
        self.running = 0
        self.tasks = {asyncio.current_task()}
        self.scope["made"].append(self)
        await self.accept()

    async def receive_json(self, content: Any, **_: Any) -> None:
        await self.note("client", content)

    async def numbered(self, event: Any) -> None:
        await self.note("layer", event["n"])

    async def note(self, side: str, n: int) -> None:
        assert who.get() == "me", "another context than that of connect"
        assert not self.running, "two handlers at a time"
        self.running += 1
        await asyncio.sleep(0)
        self.running -= 1
        self.tasks.add(asyncio.current_task())
        self.log.append((side, n))


@pytest.mark.parametrize("kind", [one for one in LAYERS if one != "none"])
async def test_one_handler_at_a_time_in_order(kind: str, valkey: Server) -> None:
    """In one task and context, from both sides in their order, and neither starves."""
    async with using(kind, valkey.url) as layer:
        made: list[Logger] = []
        client = Client(Logger.as_asgi(), made=made)
        await client.connect()
        for n in range(90):
            client.text(str(n))
            await layer.send(made[0].channel_name, {"type": "numbered", "n": n})
        log = made[0].log
        await eventually(lambda: len(log) == 180, "all events")
        for side in ("client", "layer"):
            assert [n for which, n in log if which == side] == list(range(90))
        assert len(made[0].tasks) == 1
        await client.leave()


@pytest.mark.parametrize("kind", ["core", "pubsub", "in-memory"])
async def test_neither_side_starves(kind: str, valkey: Server) -> None:
    async with using(kind, valkey.url) as layer:
        made: list[Logger] = []
        client = Client(Logger.as_asgi(), made=made)
        await client.connect()
        consumer, started, go_on = made[0], asyncio.Event(), asyncio.Event()
        receive_json = consumer.receive_json

        async def wait_first(content: Any, **_: Any) -> None:
            started.set()
            await go_on.wait()
            consumer.receive_json = receive_json

        consumer.receive_json = wait_first
        client.text("0")
        await started.wait()
        for n in range(50):
            client.text(str(n))
            await layer.send(consumer.channel_name, {"type": "numbered", "n": n})
        if kind != "in-memory":
            await eventually(lambda: len(waiting(layer)) >= 49, "a backlog")
        go_on.set()
        await eventually(lambda: len(consumer.log) == 100, "all events")
        sides = [side for side, _ in consumer.log]
        both = sides[: 100 - len(list(next(groupby(reversed(sides)))[1]))]
        assert len(both) > 60
        assert max(len(list(run)) for _, run in groupby(both)) <= 5
        await client.leave()


def waiting(layer: Any) -> Any:
    """What waits in the one mailbox that has messages."""
    return next(iter(layer._mailboxes.snapshot().values()), ())


@pytest.mark.parametrize("kind", LAYERS)
async def test_the_attributes_are_those_of_channels(kind: str, valkey: Server) -> None:
    async with using(kind, valkey.url) as layer:
        found = []
        for base in (AsyncConsumer, type("Fast", (FastDispatchMixin,), {})):

            class Consumer(base):  # type: ignore[misc, valid-type]
                async def test_look(self, event: Any) -> None:
                    found.append(dict(vars(self)))
                    await self.send({"type": "done"})

            client = Client(Consumer.as_asgi())
            client.say("test.look")
            await client.was_sent(1)
            client.task.cancel()
            await client.ended()
        plain, fast = found
        fast.pop("_database_thread")
        assert plain.keys() == fast.keys(), "Channels sets other attributes now"
        assert fast["channel_layer"] is layer
        assert fast["scope"] == plain["scope"]
        if layer is not None:
            receive = fast["channel_receive"]
            assert (receive.func, receive.args) == (
                layer.receive,
                (fast["channel_name"],),
            )


@pytest.mark.parametrize("kind", LAYERS)
async def test_an_event_while_a_handler_runs(kind: str, valkey: Server) -> None:
    """It has woken nobody, and is handled all the same."""

    class Consumer(FastDispatchMixin, AsyncWebsocketConsumer):
        groups = [] if kind == "none" else ["room"]

        async def hold(self, event: Any = None) -> None:
            holding.set()
            await go_on.wait()

        async def receive(self, text_data: Any = None, **_: Any) -> None:
            await (self.hold() if text_data == "hold" else self.send(text_data))

    async with (
        using(kind, valkey.url) as layer,
        connected(Consumer.as_asgi(), 1) as (client,),
    ):
        for side in ("client",) if layer is None else ("client", "layer"):
            holding, go_on = asyncio.Event(), asyncio.Event()
            if side == "client":
                client.text("hold")
            else:
                await layer.group_send("room", {"type": "hold"})
            await holding.wait()
            client.text("hello")
            await asyncio.sleep(0.01)  # it is there by now, if it is to be missed
            go_on.set()
            assert (await client.was_sent(1))[-1] == "hello"
            client.sent.clear()


async def test_disconnect_comes_after_the_handler_that_runs(valkey: Server) -> None:
    log = []

    class Consumer(FastDispatchMixin, AsyncWebsocketConsumer):
        groups = ["room"]

        async def hold(self, event: Any) -> None:
            holding.set()
            await go_on.wait()
            log.append("handled")

        async def disconnect(self, code: int) -> None:
            log.append(code)

    holding, go_on = asyncio.Event(), asyncio.Event()
    async with using("core", valkey.url) as layer:
        client = await Client(Consumer.as_asgi()).connect()
        await layer.group_send("room", {"type": "hold"})
        await holding.wait()
        client.disconnect(4001)
        await asyncio.sleep(0)
        go_on.set()
        assert await client.ended() is None
        assert log == ["handled", 4001]


async def test_nothing_is_sent_after_close(valkey: Server) -> None:
    """The disconnect is seen before the messages that came meanwhile."""

    class Consumer(FastDispatchMixin, AsyncWebsocketConsumer):
        groups = ["room"]

        async def numbered(self, event: Any) -> None:
            if event["n"] == 0:
                await self.close()
                self.scope["clients"][0].disconnect()
            else:
                late.append(event["n"])

    late: list[int] = []
    async with using("core", valkey.url) as layer:
        clients: list[Client] = []
        clients.append(client := Client(Consumer.as_asgi(), clients=clients))
        await client.connect()
        for n in range(20):
            await layer.group_send("room", {"type": "numbered", "n": n})
        assert await client.ended() is None
        assert late == []


async def test_a_backlog_does_not_stop_the_loop(valkey: Server) -> None:
    """Others have their turn between two messages that were there already."""

    class Consumer(FastDispatchMixin, AsyncWebsocketConsumer):
        groups = ["room"]

        async def hold(self, event: Any) -> None:
            holding.set()
            await go_on.wait()

        async def numbered(self, event: Any) -> None:
            turns_seen.append(turns)

    def count() -> None:
        nonlocal turns
        turns += 1
        if len(turns_seen) < 50:
            asyncio.get_running_loop().call_soon(count)

    turns, turns_seen = 0, []  # type: ignore[var-annotated]
    holding, go_on = asyncio.Event(), asyncio.Event()
    async with (
        using("core", valkey.url) as layer,
        connected(Consumer.as_asgi(), 1),
    ):
        await layer.group_send("room", {"type": "hold"})
        await holding.wait()
        for n in range(50):
            await layer.group_send("room", {"type": "numbered", "n": n})
        await eventually(lambda: len(waiting(layer)) == 50, "a backlog")
        count()
        go_on.set()
        await eventually(lambda: len(turns_seen) == 50, "all messages")
        assert len(set(turns_seen)) == 50


async def test_a_handler_may_receive_by_itself(valkey: Server) -> None:
    """What the client says meanwhile doesn't end that wait."""

    class Consumer(FastDispatchMixin, AsyncWebsocketConsumer):
        groups = ["room"]

        async def question(self, event: Any) -> None:
            receiving.set()
            answer = await self.channel_receive()
            await self.send(text_data=answer["text"])

        async def receive(self, text_data: Any = None, **_: Any) -> None:
            await self.send(text_data=text_data)

    receiving = asyncio.Event()
    async with (
        using("core", valkey.url) as layer,
        connected(Consumer.as_asgi(), 1) as (client,),
    ):
        await layer.group_send("room", {"type": "question"})
        await receiving.wait()
        client.text("hello")
        await asyncio.sleep(0.01)
        await layer.group_send("room", {"type": "never.handled", "text": "answer"})
        assert await client.was_sent(2) == ["answer", "hello"]


async def test_the_client_is_held_back(valkey: Server) -> None:
    """The next event is asked for when the last was handled, as without the mixin."""
    asked = 0
    go_on = asyncio.Event()

    async def receive() -> Any:
        nonlocal asked
        asked += 1
        return {"type": "test.hold"}

    class Consumer(FastDispatchMixin, AsyncConsumer):
        async def test_hold(self, event: Any) -> None:
            await go_on.wait()
            raise StopConsumer

    async with using("core", valkey.url):
        task = asyncio.ensure_future(Consumer()({}, receive, None))
        await eventually(lambda: asked, "the first event")
        await asyncio.sleep(0.01)
        assert asked == 1
        go_on.set()
        await asyncio.wait_for(task, 10)


async def test_who_sends_to_a_slow_client_waits_alone(valkey: Server) -> None:
    class Consumer(FastDispatchMixin, AsyncWebsocketConsumer):
        groups = ["room"]

        async def numbered(self, event: Any) -> None:
            await self.send(text_data=str(event["n"]))

    async with (
        using("core", valkey.url, capacity=50) as layer,
        connected(Consumer.as_asgi(), 5) as clients,
    ):
        slow, *others = clients
        slow.open.clear()
        for n in range(200):
            await layer.group_send("room", {"type": "numbered", "n": n})
            await others[0].was_sent(n + 1)
        numbers = [str(n) for n in range(200)]
        for other in others:
            assert await other.was_sent(200) == numbers
        slow.open.set()
        # The one in its handler, and what its mailbox may hold: the newest.
        assert await slow.was_sent(51) == [*numbers[:1], *numbers[-50:]]
