"""How consumers with the mixin get messages of a layer, and let go of them."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer
from channels.generic.websocket import (
    AsyncWebsocketConsumer,
)

from channels_redis_fast.consumers import FastDispatchMixin
from channels_redis_fast.core import RedisChannelLayer
from support.consuming import connected, using
from support.polling import eventually
from support.servers import Server


async def test_an_idle_consumer_holds_no_message(valkey: Server) -> None:
    class Consumer(FastDispatchMixin, AsyncWebsocketConsumer):
        groups = ["room"]

        async def chat(self, event: Any) -> None:
            await self.send(text_data="got it")

    async with (
        using("core", valkey.url) as layer,
        connected(Consumer.as_asgi(), 2) as clients,
    ):
        await layer.group_send("room", {"type": "chat", "in": ["a unique list"]})
        for client in clients:
            await client.was_sent(1)
        await asyncio.sleep(0.01)
        gc.collect()
        held = [one for one in gc.get_objects() if one == ["a unique list"]]
        # The one that was sent is the sender's own.
        assert [one for one in held if gc.get_referrers(one) != [held]][1:] == []


async def test_receive_may_swallow_its_cancellation(valkey: Server) -> None:
    """As wait_for of old Pythons does, in some middleware."""

    async def receive() -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return {"type": "test.late"}

    class Consumer(FastDispatchMixin, AsyncConsumer):
        async def test_stop(self, event: Any) -> None:
            raise StopConsumer

        async def test_name(self, event: Any) -> None: ...

    async with using("core", valkey.url) as layer:
        names: list[str] = []
        new_channel = layer.new_channel

        async def noted(*args: Any) -> Any:
            names.append(await new_channel(*args))
            return names[-1]

        layer.new_channel = noted
        task = asyncio.ensure_future(Consumer()({}, receive, None))
        await eventually(lambda: names, "its channel")
        await layer.send(names[0], {"type": "test.stop"})
        await asyncio.wait_for(task, 10)


async def test_an_overridden_receive_is_called(valkey: Server) -> None:
    seen = []

    class Watched(RedisChannelLayer):
        async def receive(self, channel: str) -> Any:
            message = await super().receive(channel)
            seen.append(message)
            return message

    class Consumer(FastDispatchMixin, AsyncWebsocketConsumer):
        groups = ["room"]

        async def chat(self, event: Any) -> None:
            await self.send(text_data=event["text"])

    async with using("core", valkey.url) as inner:
        from channels.layers import channel_layers

        layer = Watched(hosts=[valkey.url])
        channel_layers.set("default", layer)
        async with connected(Consumer.as_asgi(), 1) as (client,):
            await layer.group_send("room", {"type": "chat", "text": "hello"})
            assert await client.was_sent(1) == ["hello"]
        assert seen == [{"type": "chat", "text": "hello"}]
        await layer.close_pools()
        await inner.close_pools()


async def test_pubsub_subscribes_anew_after_close_pools(valkey: Server) -> None:
    """There `receive` sees to the channel; no event of the client waits for that."""

    class Consumer(FastDispatchMixin, AsyncWebsocketConsumer):
        async def chat(self, event: Any) -> None:
            await self.send(text_data=event["text"])

        async def receive(self, text_data: Any = None, **_: Any) -> None:
            await self.send(text_data=self.channel_name)

    async with (
        using("pubsub", valkey.url) as layer,
        connected(Consumer.as_asgi(), 1) as (client,),
    ):
        client.text("name?")
        (name,) = await client.was_sent(1)
        await layer.close_pools()
        client.text("name?")  # so that it begins to receive again
        await client.was_sent(2)
        for n in range(3):
            await eventually(lambda: layer._table.loop_of(name), "the subscription")
            await layer.send(name, {"type": "chat", "text": str(n)})
            assert (await client.was_sent(3 + n))[-1] == str(n)
        client.text("name?")
        assert (await client.was_sent(6))[-1] == name
