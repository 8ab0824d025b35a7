"""What is known of a Cluster's slots, and where its nodes send callers."""

from __future__ import annotations

import time
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.client.blocking_pool import BlockingPool
from channels_redis_fast.client.cluster_host import ClusterHost
from channels_redis_fast.client.host import Host
from channels_redis_fast.client.hosts import decode_hosts
from channels_redis_fast.client.opening import open_connection
from channels_redis_fast.client.topology import SLOTS, Address, Topology
from support.servers import Server

A, B, C = ("a", 1), ("b", 2), ("c", 3)
SCRIPT = "return redis.error_reply(ARGV[1])"


def ranges(*owners: tuple[int, Address], more: Any = ()) -> list[Any]:
    """An answer to CLUSTER SLOTS: from which slot on there is another owner."""
    firsts = [first for first, _ in owners]
    lasts = [first - 1 for first in firsts[1:]] + [SLOTS - 1]
    return [
        [first, last, [host.encode(), port, b"id", *more], [b"replica", 9, b"id"]]
        for (first, (host, port)), last in zip(owners, lasts, strict=True)
    ]


def moved(slot: int, node: Address) -> errors.MovedError:
    return errors.MovedError(f"{slot} {node[0]}:{node[1]}")


class Told(Topology):
    """A topology that takes answers, where nothing is gone unless said so."""

    def __init__(self) -> None:
        super().__init__([A])
        self.gone: set[Address] = set()

    def ask(self) -> int:
        """The number of a question."""
        return next(self.questions([], lambda: 1.0))[2]

    def hear(self, answer: list[Any], question: int | None = None) -> set[Address]:
        """Takes an answer, by default to a question of now."""
        asked = self.ask() if question is None else question
        return self.learn(A, answer, asked, self.gone.__contains__)

    def at(self, slot: int) -> Address | None:
        """The owner of a slot."""
        return self._owners[slot]


def keys_claimed(topology: Topology, node: Address) -> list[tuple[set[int], bool]]:
    """What a node is greeted for: the slots of some keys."""
    keys = {b"3560": 0, b"22179": 1, b"22078": 10_000}
    return [
        ({slot for key, slot in keys.items() if owns(key)}, anew)
        for owns, anew in topology.claims(node)
    ]


# Answers and corrections


def test_a_correction_holds_against_an_older_question() -> None:
    topology = Told()
    topology.hear(ranges((0, A), (100, B)))
    asked = topology.ask()
    topology.correct(moved(0, C))
    topology.hear(ranges((0, A), (100, B)), asked)
    assert [topology.at(slot) for slot in (0, 1, 100)] == [C, A, B]
    topology.hear(ranges((0, A), (100, B)))  # asked after it
    assert topology.at(0) == A


def test_an_answer_that_was_overtaken_is_too_old() -> None:
    topology = Told()
    first, second = topology.ask(), topology.ask()
    topology.hear(ranges((0, B)), second)
    topology.hear(ranges((0, A)), first)
    assert topology.owners == {B}


def test_a_host_that_a_node_does_not_know_corrects_nothing() -> None:
    """The others are asked, who may know it."""
    topology = Told()
    topology.hear(ranges((0, A)))
    assert not topology.correct(moved(0, ("?", 2)))
    assert topology.at(0) == A


@pytest.mark.parametrize(
    ("host", "more", "expected"),
    [
        (b"", [], "a"),
        (None, [], "a"),
        (None, [[b"ip", b"10.0.0.1"]], "a"),  # a proxy's: reached as what was asked
        (b"?", [], "a"),
        (b"?", [[]], "a"),
        (b"?", [[b"ip", b"10.0.0.1"]], "10.0.0.1"),
        (b"", [[b"hostname", b"a.example"]], "a"),
        (b"b.example", [[b"ip", b"10.0.0.1"]], "b.example"),
    ],
)
def test_hosts_in_an_answer(host: Any, more: list[Any], expected: str) -> None:
    topology = Told()
    topology.hear([[0, SLOTS - 1, [host, 7, b"id", *more]]])
    assert topology.owners == {(expected, 7)}


# Slots of nodes that are gone


def test_who_takes_over_from_a_node_that_is_gone_is_greeted_for_it() -> None:
    topology = Told()
    topology.hear(ranges((0, A), (100, B)))
    topology.gone.add(A)
    assert topology.hear(ranges((0, B), (1, C), (100, B))) == {B, C}
    assert keys_claimed(topology, B) == [({0, 10_000}, False), ({0}, True)]
    assert keys_claimed(topology, B) == [({0, 10_000}, False)]
    assert keys_claimed(topology, C) == [({1}, False), ({1}, True)]


def test_a_greeting_that_fails_is_owed() -> None:
    topology = Told()
    topology.hear(ranges((0, A), (100, B)))
    topology.gone.add(A)
    topology.hear(ranges((0, B)))
    claims = topology.claims(B)
    next(claims)
    next(claims)
    claims.close()
    assert keys_claimed(topology, B) == [({0, 1, 10_000}, False), ({0, 1}, True)]


def test_a_correction_hides_no_handover() -> None:
    """MOVED may tell of it first."""
    topology = Told()
    topology.hear(ranges((0, A), (100, B)))
    topology.correct(moved(0, B))
    topology.gone.add(A)
    assert topology.hear(ranges((0, B), (1, A), (100, B))) == {B}


def test_a_node_that_is_there_hands_over_what_it_has() -> None:
    topology = Told()
    topology.hear(ranges((0, A), (100, B)))
    assert topology.hear(ranges((0, B))) == set()
    assert keys_claimed(topology, B) == [({0, 1, 10_000}, False)]


# Where nodes send callers


async def said(host: Host, way: str, text: str) -> Exception:
    """The error that a caller gets for an error reply."""
    command = (b"EVAL", SCRIPT, 0, text)
    if way == "thread":
        error = BlockingPool(host).ask(command, time.monotonic() + 5)
        assert isinstance(error, Exception)
        return error
    pipe = await open_connection(host, deadline=5.0)
    with pytest.raises(errors.RedisError) as caught:
        await pipe.call(command)
    await pipe.aclose()
    return caught.value


@pytest.mark.parametrize("way", ["loop", "thread"])
@pytest.mark.parametrize("code", ["MOVED", "ASK"])
@pytest.mark.parametrize("host", ["", "?", "127.0.0.9", "::1"])
async def test_a_redirection_has_an_address(
    valkey: Server, way: str, code: str, host: str
) -> None:
    """Without a host, or with one that the node doesn't know: that of the node."""
    (cluster,) = decode_hosts([{"cluster": [valkey.address]}], 1.0)
    assert isinstance(cluster, ClusterHost)
    node = cluster.node(*valkey.address)
    error: Any = await said(node, way, f"{code} 866 {host}:7001")
    kind = {"MOVED": errors.MovedError, "ASK": errors.AskError}[code]
    assert type(error) is kind
    expected = valkey.host if host in ("", "?") else host
    assert (error.slot_id, error.host, error.port) == (866, expected, 7001)


@pytest.mark.parametrize("way", ["loop", "thread"])
@pytest.mark.parametrize("code", ["MOVED", "ASK"])
async def test_a_plain_server_redirects_nobody(
    valkey: Server, way: str, code: str
) -> None:
    (host,) = decode_hosts([valkey.url], 1.0)
    error = await said(host, way, f"{code} 866 127.0.0.9:7001")
    assert type(error) is errors.ResponseError
    for part in str(host), "a node of a Cluster", '"cluster"', "866 127.0.0.9:7001":
        assert part in str(error)
