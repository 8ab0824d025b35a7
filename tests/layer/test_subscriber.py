"""A connection with subscriptions: names given up, and servers that are too old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.client.host_verbs import HostVerbs
from channels_redis_fast.client.hosts import decode_hosts
from channels_redis_fast.client.shard import Shard
from channels_redis_fast.subscriptions.subscriber import Subscriber
from support.polling import eventually
from support.programs import UNSHARDED
from support.pubsubs import subscribed
from support.refusals import no_time
from support.servers import Server


@asynccontextmanager
async def subscribed_by(
    server: Server, sharded: bool = False
) -> AsyncIterator[tuple[Subscriber, list[bytes]]]:
    """A subscriber of its own, and what it delivers."""
    cluster = {"cluster": [(server.host, server.port)]}
    host, node = decode_hosts([server.url, cluster], 1.0)
    shard = Shard(0, host, 1.0, lambda *about: None)
    got: list[bytes] = []
    yield (
        Subscriber(
            shard,
            None,
            HostVerbs(node if sharded else host, sharded),
            deliver=lambda name, payload: got.append(payload),
            stray=lambda subscriber, name: None,
            down=lambda subscriber: None,
            up=lambda subscriber: None,
        ),
        got,
    )
    await shard.aclose()


def answer_for(subscriber: Subscriber, name: bytes) -> asyncio.Future[Any] | None:
    """What a name that was asked for waits for."""
    confirmations = subscriber._confirmations
    return confirmations.get(name) if confirmations else None


async def test_connecting_that_was_cancelled(server: Server) -> None:
    """As by somebody who cancels all tasks of a loop, which goes on."""
    async with subscribed_by(server) as (subscriber, got):
        await subscriber.subscribe(b"name")
        link = subscriber._link
        greet: Any = link._greet
        link._greet = lambda connection: asyncio.sleep(60)
        server.client().client_kill_filter(_type="pubsub")
        attempt = await eventually(lambda: link._attempt, "another attempt")
        link._greet = greet
        attempt.cancel()
        await eventually(lambda: server.client().publish("name", "1"), "a subscriber")
        await eventually(lambda: got, "a message")


async def test_what_comes_when_a_name_was_given_up(server: Server) -> None:
    """By then another node of a Cluster may deliver it, too."""
    async with subscribed_by(server) as (subscriber, got):
        await subscriber.subscribe(b"name")
        assert server.client().publish("name", "1") == 1
        await eventually(lambda: got, "a message")
        subscriber.unsubscribe(b"name")
        assert server.client().publish("name", "2") == 1  # the server doesn't know yet
        await subscriber.subscribe(b"other")
        assert got == [b"1"]


async def test_a_name_that_is_given_up_while_connecting(server: Server) -> None:
    """It isn't subscribed at the second attempt."""
    async with subscribed_by(server) as (subscriber, _):
        await subscriber.subscribe(b"name")
        server.pause()
        subscriber._link.drop(errors.ConnectionError("for a test"))
        await eventually(lambda: subscriber._link._attempt, "an attempt")
        wanted = asyncio.create_task(subscriber.subscribe(b"other"))
        await asyncio.sleep(0)
        subscriber.unsubscribe(b"other")
        server.kill()
        with pytest.raises(errors.ConnectionError):
            await wanted
        assert list(subscriber.names) == [b"name"]
        server.start()
        await eventually(lambda: subscribed(server) == {"name"}, "just this")


async def test_a_server_without_sharded_pubsub(redis62: Server) -> None:
    """Also those hear nothing of it who come while the first one finds out."""
    async with subscribed_by(redis62, sharded=True) as (subscriber, got):
        await subscriber._link.get()  # before there is a name to find out with
        names = [b"name%d" % n for n in range(3)]
        await asyncio.gather(*map(subscriber.subscribe, [*names, *names]))
        for name in names:
            assert redis62.client().publish(name, name) == 1
        await eventually(lambda: got == names, "the messages")


@pytest.mark.skipif(bool(UNSHARDED), reason=str(UNSHARDED))
@pytest.mark.parametrize("right", ["ping", "sunsubscribe"])
async def test_a_name_is_given_up_without_the_right(server: Server, right: str) -> None:
    """The answers that follow reach those who asked."""
    server.client().execute_command("ACL", "SETUSER", "default", f"-{right}")
    async with subscribed_by(server, sharded=True) as (subscriber, got):
        await subscriber.subscribe(b"name")
        pipe = subscriber._link.connection
        subscriber.unsubscribe(b"name")
        for n in range(3):
            await subscriber.subscribe(b"other%d" % n)
        server.client().execute_command("SPUBLISH", "other2", "1")
        await eventually(lambda: got == [b"1"], "the message")
        assert subscriber._link.connection is pipe


async def test_names_that_nobody_waits_for(server: Server) -> None:
    """They are subscribed in the end, whenever they are wanted."""
    async with subscribed_by(server) as (subscriber, _):
        server.kill()
        subscriber.want(b"early")
        server.start()
        await eventually(lambda: subscriber.is_up, "the connection")
        assert subscribed(server) == {"early"}
        for n in range(3):
            subscriber.want(b"name%d" % n)
        subscriber.unsubscribe(b"name1")
        await subscriber.settled()
        assert subscribed(server) == {"early", "name0", "name2"}


async def test_a_server_that_is_busy_for_a_while(server: Server) -> None:
    """What is wanted meanwhile is asked for again, on the same connection."""
    async with subscribed_by(server) as (subscriber, _):
        await subscriber.subscribe(b"before")
        pipe = subscriber._link.connection
        steps = no_time(server)
        next(steps)
        subscriber.want(b"name")
        answer = await eventually(lambda: answer_for(subscriber, b"name"), "it")
        await asyncio.wait([answer])
        assert str(answer.exception()).startswith("BUSY")
        for _ in steps:
            pass
        await eventually(lambda: subscribed(server) == {"before", "name"}, "the name")
        assert subscriber._link.connection is pipe


async def test_who_waits_for_a_name_while_all_is_closed(server: Server) -> None:
    """It hears of a lost connection, and isn't cancelled with who asked first."""
    async with subscribed_by(server) as (subscriber, _):
        await subscriber.subscribe(b"before")
        server.pause()
        subscriber.want(b"name")
        await eventually(lambda: answer_for(subscriber, b"name"), "the question")
        waiting = asyncio.create_task(subscriber.subscribe(b"name"))
        await asyncio.sleep(0)
        await subscriber.shard.aclose()
        with pytest.raises(errors.ConnectionError):
            await waiting
