"""A user with the rights that docs/hosts.md lists gets along, and needs all of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import pytest
from channels.exceptions import ChannelFull
from redis import exceptions as errors

from channels_redis_fast.client.shard import Shard
from support.behaviours import BEHAVIOURS, Behaviour, until_it_works
from support.clusters import Cluster, slot_of
from support.layers import end, opened, soon
from support.paths import DOCS
from support.polling import eventually
from support.programs import UNSHARDED
from support.servers import Server
from support.syncing import KINDS

TEXT = (DOCS / "hosts.md").read_text()
LIMITS = ["~asgi*", "resetchannels"]
CHANNELS = "&asgi*"
FLUSH = "+scan +unlink"
CLUSTER = "+cluster|slots +asking"
SELECT = "+select"
CLASSIC = "+subscribe +unsubscribe +publish"
SHARDED = "+ssubscribe +sunsubscribe +spublish"

# redis-py's, which need no right or take a refusal.
FREE = {"auth", "client|setinfo"}

SetUser = Callable[..., dict[str, Any]]


def listed() -> list[str]:
    """The commands that the TEXT says everybody needs."""
    (text,) = re.findall(r"## Users with few rights\n(.*?)(?:\n##|\Z)", TEXT, re.DOTALL)
    for more in FLUSH, CLUSTER, SELECT, CHANNELS, CLASSIC, SHARDED:
        assert f"`{more}`" in text
    block = re.search(r"\n\n((?:    \+.*\n)+)\n", text)
    assert block is not None
    return block[1].split()


@pytest.fixture
def set_user(any_server: Server) -> Iterator[SetUser]:
    """Makes a user of the server in turn; gives the entry of `hosts` for it."""

    def set_(*rules: str) -> dict[str, Any]:
        set_limited(any_server, *rules)
        return entry(any_server)

    yield set_
    any_server.client().acl_deluser("limited")


def set_limited(server: Server, *rules: str) -> None:
    """Make a user who may use the prefix's keys, and what the rules say."""
    words = ["limited", "reset", "on", ">secret", *LIMITS, *rules]
    server.client().execute_command("ACL", "SETUSER", *words)
    server.client().acl_log_reset()


def entry(server: Server) -> dict[str, Any]:
    """The entry of `hosts` for the user."""
    user = {"username": "limited", "password": "secret"}
    return {"host": server.host, "port": server.port, **user}


def refused(server: Server) -> set[str]:
    """The commands and keys that the user was not allowed."""
    said = {refusal["object"] for refusal in server.client().acl_log()}
    # Redis 6 knows no CLIENT SETINFO, and refuses it with the rest of CLIENT.
    return said - FREE - {"client"}


@pytest.mark.parametrize("behaviour", BEHAVIOURS.values(), ids=BEHAVIOURS)
async def test_they_suffice(
    any_server: Server, set_user: SetUser, behaviour: Behaviour
) -> None:
    host = set_user(*listed(), *FLUSH.split())
    async with opened(host) as one, opened(host) as other:
        await behaviour(one, other)
    assert not refused(any_server)


async def test_with_a_database_number(any_server: Server, set_user: SetUser) -> None:
    rules = listed()
    async with opened({**set_user(*rules), "db": 2}) as layer:
        with pytest.raises(errors.RedisError, match=r"NOPERM.*select|permissions"):
            await layer.send("worker", {})
        set_user(*rules, SELECT)
        await until_it_works(layer)


async def test_none_is_listed_in_vain(valkey: Server) -> None:
    set_limited(valkey, *listed())
    used = Usage([valkey])
    host = entry(valkey)
    async with opened(host) as one, opened(host) as other:
        for name, behaviour in BEHAVIOURS.items():
            if name != "flush":
                await behaviour(one, other)
    # Members that are refreshed and healed, and an idle connection that is asked.
    async with opened(host, group_expiry=0.9, command_timeout=0.3) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        await eventually(lambda: "ping" in used.commands(), "a PING")
        await asyncio.sleep(1)  # longer than a membership lasts
        await layer.group_send("room", {"n": 1})
        assert await soon(layer, name) == {"n": 1}
        # As if it had lost its data.
        valkey.client().delete("asgi:group:room")
        valkey.client().execute_command("DEBUG", "CHANGE-REPL-ID")
        valkey.client().client_kill_filter(user="limited")
        await until_it_works(layer)
        await layer.group_send("room", {"n": 2})
        assert await soon(layer, name) == {"n": 2}
    async with opened(host, capacity=1) as layer:
        assert await layer.processes()
        await layer.send("full", {"n": 1})
        with pytest.raises(ChannelFull):
            await layer.send("full", {"n": 2})
    assert not refused(valkey)
    # INFO is ours, too; what follows shows that it is theirs.
    assert used.commands() | {"info"} == {rule[1:] for rule in listed()}
    valkey.client().acl_deluser("limited")


async def test_without_info(any_server: Server, set_user: SetUser) -> None:
    host = set_user(*(rule for rule in listed() if rule != "+info"))
    async with opened(host) as one, opened(host) as other:
        await BEHAVIOURS["groups"](one, other)
        any_server.client().client_kill_filter(user="limited")
        await until_it_works(one)
        await until_it_works(other)
        await BEHAVIOURS["groups"](one, other)
    assert refused(any_server) == {"info"}


class Usage:
    """Which commands clients, and scripts, have used since; ours left out."""

    ours = ("acl|", "config|", "client|kill", "debug", "info", "del")

    def __init__(self, servers: Iterable[Server]) -> None:
        self._servers = list(servers)
        for server in self._servers:
            server.client().config_resetstat()

    def commands(self) -> set[str]:
        """Their names, as ACL rules write them."""
        found = set()
        for server in self._servers:
            for name, numbers in server.client().info("commandstats").items():
                if numbers["calls"]:
                    found.add(name.removeprefix("cmdstat_"))
        return {n for n in found - FREE if not n.startswith(self.ours)}


async def test_on_a_cluster(cluster: Cluster) -> None:
    for node in cluster.nodes:
        set_limited(node, *listed(), *FLUSH.split(), *CLUSTER.split())
    host = {"cluster": cluster.host["cluster"]}
    host |= {"username": "limited", "password": "secret"}
    used = Usage(cluster.nodes)
    async with opened(host) as one, opened(host) as other:
        for behaviour in BEHAVIOURS.values():
            await behaviour(one, other)
        source = cluster.node_of("asgiworker")
        target = next(node for node in cluster.primaries if node is not source)
        for there in target, source:  # and back
            migration = cluster.migration(slot_of("asgiworker"), there)
            assert list(islice(migration, 2)) == ["importing", "migrating"]
            await one.send("worker", {"n": 1})
            assert await soon(other, "worker") == {"n": 1}
            list(migration)
    assert not set.union(*map(refused, cluster.nodes))
    needed = {rule[1:] for rule in [*FLUSH.split(), *CLUSTER.split()]}
    assert used.commands() >= needed
    for node in cluster.nodes:
        node.client().acl_deluser("limited")


async def test_of_pubsub(any_server: Server, set_user: SetUser) -> None:
    host = set_user(*listed(), CHANNELS, *CLASSIC.split())
    await publish(host, [any_server], CLASSIC)


@pytest.mark.skipif(bool(UNSHARDED), reason=str(UNSHARDED))
async def test_of_sharded_pubsub(cluster: Cluster) -> None:
    for node in cluster.nodes:
        rules = [*listed(), *CLUSTER.split(), CHANNELS, *SHARDED.split()]
        set_limited(node, *rules)
    host = {"cluster": cluster.host["cluster"]}
    host |= {"username": "limited", "password": "secret"}
    await publish(host, cluster.nodes, SHARDED)
    for node in cluster.nodes:
        node.client().acl_deluser("limited")


async def publish(host: Any, servers: list[Server], rules: str) -> None:
    """To a channel, a group and a worker; all of the rules are needed, and no more."""
    used, needed = Usage(servers), {rule[1:] for rule in rules.split()}
    layer = KINDS["pubsub"](hosts=[host])
    name = await layer.new_channel()
    await layer.group_add("room", name)
    for sent in layer.send(name, {}), layer.group_send("room", {}):
        await sent
        assert await soon(layer, name) == {}
    await layer.send("worker", {})
    assert await soon(layer, "worker") == {}
    await layer.group_discard("room", name)
    await eventually(lambda: used.commands() >= needed, "all of them")
    await layer.close_pools()
    assert not set.union(*map(refused, servers))


@pytest.mark.parametrize("missing", ["client|unblock", "client|id"])
async def test_waits_that_can_t_be_ended(
    set_user: SetUser, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run out, and nothing is lost or doubled."""
    monkeypatch.setattr(Shard, "wait", 1.0)
    loop = asyncio.get_running_loop()
    host = set_user(*(rule for rule in listed() if rule != f"+{missing}"))
    async with opened(host) as one, opened(host) as other:
        waiting = asyncio.create_task(one.receive("worker"))
        await one.send("other", {})  # by then it waits
        await asyncio.sleep(0.1)
        began = loop.time()
        ending = asyncio.create_task(end(waiting))
        await other.send("worker", {"n": 1})
        await ending
        assert waiting.cancelled()
        assert loop.time() - began < 1.5
        assert await soon(other, "worker") == {"n": 1}
        for name in "sends", "groups":
            await BEHAVIOURS[name](one, other)
