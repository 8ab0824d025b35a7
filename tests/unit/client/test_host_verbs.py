"""Which commands of Pub/Sub a host has, by what it answers."""

from __future__ import annotations

import asyncio

import pytest
from redis import exceptions as errors

from channels_redis_fast.client.host_verbs import HostVerbs
from channels_redis_fast.client.hosts import decode_hosts
from channels_redis_fast.commands.command import Command
from channels_redis_fast.commands.errors import reply_error
from channels_redis_fast.commands.publishing import CLASSIC, SHARDED
from channels_redis_fast.pubsub import RedisPubSubChannelLayer
from channels_redis_fast.runtime.blocking_engine import run_without_loop
from support.forking import in_child, needs_fork
from support.layers import end

SERVER, CLUSTER = decode_hosts(
    ["redis://localhost", {"cluster": [("localhost", 7000)]}], 1.0
)


def test_only_a_cluster_may_have_others() -> None:
    for host, sharded in (SERVER, True), (SERVER, False), (CLUSTER, False):
        verbs = HostVerbs(host, sharded)
        assert verbs.verbs is CLASSIC
        assert verbs.is_settled
    assert not HostVerbs(CLUSTER, True).is_settled


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("ERR unknown command `SPUBLISH`, with args beginning with: `n`, ", CLASSIC),
        ("ERR unknown command 'SPUBLISH', with args beginning with: 'n' ", CLASSIC),
        ("ERR wrong number of arguments for 'spublish' command", SHARDED),
        ("NOPERM this user has no permissions", SHARDED),
    ],
)
async def test_it_is_asked_once(answer: str, expected: object) -> None:
    verbs, asked = HostVerbs(CLUSTER, True), []

    async def run(command: Command) -> None:
        asked.append(command)
        raise reply_error(answer)

    for _ in range(2):
        await verbs.ask("a shard", "n", run)
        assert verbs.verbs is expected
        assert verbs.is_settled
    assert asked == [(b"SPUBLISH", "n")]


async def test_as_long_as_it_does_not_say() -> None:
    """It is taken for a new one: an old one refuses, and nothing is lost unseen."""
    verbs = HostVerbs(CLUSTER, True)

    async def run(command: Command) -> None:
        raise errors.ConnectionError("lost")

    with pytest.raises(errors.ConnectionError):
        await verbs.ask("a shard", "n", run)
    assert verbs.verbs is SHARDED
    assert not verbs.is_settled


@needs_fork
async def test_a_child_does_not_wait_for_its_parent() -> None:
    """Whose question is under way: in the child nobody hears the answer."""
    layer = RedisPubSubChannelLayer(hosts=[{"cluster": [("localhost", 7000)]}])
    (verbs,) = layer._verbs
    answer = asyncio.get_running_loop().create_future()
    asking = asyncio.create_task(verbs.ask("a shard", "n", lambda _: answer))
    await asyncio.sleep(0)

    async def run(command: Command) -> None:
        raise reply_error("ERR wrong number of arguments for 'spublish' command")

    def is_settled() -> bytes:
        run_without_loop(verbs.ask("a shard of the child", "n", run))
        return str(verbs.is_settled).encode()

    assert in_child(is_settled) == b"True"
    assert not verbs.is_settled
    await end(asking)
