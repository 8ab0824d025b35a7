"""The Cluster of the tests shares slots, moves them, and replaces a primary."""

from __future__ import annotations

from itertools import islice

import pytest
import redis
from redis.exceptions import AskError, MovedError

from support.clusters import Cluster, slot_of
from support.servers import Server

pytestmark = pytest.mark.slow


def test_every_key_has_its_node(cluster: Cluster) -> None:
    for number in range(30):
        cluster.client().set(f"key{number}", number)
    assert len(cluster.primaries) == 3
    sizes = [node.client().dbsize() for node in cluster.primaries]
    assert sum(sizes) == 30
    assert all(sizes)
    assert cluster.node_of("key7").client().get("key7") == b"7"
    other = next(n for n in cluster.primaries if n is not cluster.node_of("key7"))
    assert _get(other, "key7") == "MOVED"


def test_a_killed_primary_is_replaced(own_cluster: Cluster) -> None:
    old = own_cluster.node_of("key")
    own_cluster.client().set("key", "value")
    assert old.client().wait(1, 5000) == 1
    new = own_cluster.kill_primary_of("key")
    assert new is own_cluster.node_of("key") is not old
    assert new.client().get("key") == b"value"
    own_cluster.revive(old)
    assert own_cluster.failover("key") is old


def test_a_slot_moves_step_by_step(own_primaries: Cluster) -> None:
    source = own_primaries.node_of("{a}")
    target = next(node for node in own_primaries.primaries if node is not source)
    for number in range(4):
        own_primaries.client().set(f"{{a}}{number}", number)
    steps = own_primaries.migration(slot_of("{a}"), target)
    assert list(islice(steps, 3)) == ["importing", "migrating", "moved"]
    answers = [_get(source, f"{{a}}{number}") for number in range(4)]
    assert sorted(answers) == ["ASK", "here", "here", "here"]
    assert list(steps) == ["moved", "moved", "moved", "assigned"]
    assert own_primaries.node_of("{a}") is target
    assert sorted(target.client().keys()) == [b"{a}0", b"{a}1", b"{a}2", b"{a}3"]
    said: list[str] = []
    own_primaries.migrate_slot(slot_of("{a}"), source, said.append, batch=10)
    assert said == ["importing", "migrating", "moved", "assigned"]
    assert own_primaries.node_of("{a}") is source


def _get(node: Server, key: str) -> str:
    try:
        node.client().execute_command("GET", key)
    except redis.ResponseError as error:
        # A class of its own or not, depending on redis-py's version.
        if isinstance(error, MovedError) or str(error).startswith("MOVED"):
            return "MOVED"
        if isinstance(error, AskError) or str(error).startswith("ASK"):
            return "ASK"
        raise
    return "here"
