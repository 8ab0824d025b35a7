"""`channel_layer check`: each finding provoked, and none on a right server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer

from channels_redis_fast.diagnosis.diagnose import diagnose
from support import refusals
from support.answering import AnsweringProxy
from support.certificates import Certificates
from support.clusters import Cluster
from support.diagnosing import CLASSIC, ENOUGH, about, amiss, findings, follow, limited
from support.programs import UNSHARDED
from support.sentinels import SentinelSet
from support.servers import Server, free_port
from support.syncing import KINDS
from support.tlsfront import TLSFront

EITHER = pytest.mark.parametrize("kind", KINDS)
KEY = "k" * 32


@pytest.fixture
def answering(valkey: Server) -> Iterator[AnsweringProxy]:
    """A proxy of which the server may pass for another one."""
    with AnsweringProxy(valkey) as proxy:
        yield proxy


@EITHER
def test_a_right_server(kind: str, any_server: Server) -> None:
    found = findings(any_server.url, kind=kind)
    assert amiss(found) == {}
    topics = ["reach", "version", "role", "eviction", "buffers", "timeout", "clock"]
    topics += ["rights", "keys", "send", "group_send", "normal channel"]
    assert [one.topic for one in found] == topics
    assert any_server.client().dbsize() == 0  # nothing is left behind


@EITHER
def test_a_password(kind: str, guarded: Server) -> None:
    found = findings(guarded.url, guarded.unix_url, kind=kind)
    assert amiss(found) == {}
    assert not any("p@ss" in str(one) or "p%40ss" in str(one) for one in found)
    found = findings(f"redis://:wrong@{guarded.host}:{guarded.port}", kind=kind)
    assert amiss(found) == {"reach": "error", "messages": "unknown"}
    assert "password" in about(found, "reach").remedy
    assert "wrong@" not in str(found)


def test_nobody_there() -> None:
    found = findings(f"redis://127.0.0.1:{free_port()}")
    assert amiss(found) == {"reach": "error", "messages": "unknown"}
    assert "start it" in about(found, "reach").remedy


def test_one_of_two_is_away(valkey: Server) -> None:
    found = findings(valkey.url, f"redis://127.0.0.1:{free_port()}")
    assert amiss(found) == {"reach": "error", "messages": "unknown"}
    assert about(found, "version").where == valkey.url


def test_a_server_that_hangs(server: Server) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        found = findings(server.url, command_timeout=0.3)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert amiss(found) == {"reach": "error", "messages": "unknown"}


def test_a_replica(valkey: Server, start_server: Callable[..., Server]) -> None:
    of = {"replicaof": f"{valkey.host} {valkey.port}"}
    replica = start_server(options=of)
    found = findings(replica.url, command_timeout=0.3)
    assert amiss(found) == {"role": "error", "send": "error"}
    assert valkey.url in about(found, "role").remedy
    replica.client().config_set("replica-read-only", "no")
    assert "lost" in about(findings(replica.url), "role").text


def test_a_replica_that_lags(answering: AnsweringProxy) -> None:
    replica = "connected_slaves:1\r\nslave0:ip=10.0.0.9,port=6379,state={},lag={}\r\n"
    for state, lag, level in (
        ("online", 0, "ok"),
        ("online", 60, "warning"),
        ("wait_bgsave", 0, "warning"),
    ):
        answering.say(b"INFO", replica.format(state, lag))
        one = about(findings(answering.url), "replicas")
        assert one.level.value == level
        assert "10.0.0.9:6379" in one.text


def test_an_old_server(answering: AnsweringProxy) -> None:
    answering.say(b"INFO", "redis_version:4.0.14\r\nredis_mode:standalone\r\n")
    found = findings(answering.url)
    assert amiss(found) == {"reach": "error", "messages": "unknown"}
    assert "5.0 or later" in about(found, "reach").text


def test_a_sentinel_in_place_of_its_primary(answering: AnsweringProxy) -> None:
    answering.say(b"INFO", "redis_version:7.0.0\r\nredis_mode:sentinel\r\n")
    assert "'master_name'" in about(findings(answering.url), "reach").text


def test_a_node_of_a_cluster_as_a_server(answering: AnsweringProxy) -> None:
    answering.say(b"INFO", "redis_version:7.0.0\r\ncluster_enabled:1\r\n")
    found = findings(answering.url)
    assert '{"cluster": [' in about(found, "cluster").remedy
    assert about(found, "cluster").level.value == "error"


@pytest.mark.parametrize(("most", "level"), [("0", "note"), ("1gb", "warning")])
def test_eviction(server: Server, most: str, level: str) -> None:
    server.client().config_set("maxmemory-policy", "allkeys-lru")
    server.client().config_set("maxmemory", most)
    found = findings(server.url)
    assert amiss(found) == {"eviction": level}
    follow(about(found, "eviction").remedy, server)
    assert amiss(findings(server.url)) == {}


@pytest.mark.slow
def test_keys_that_were_evicted(server: Server) -> None:
    admin = server.client()
    for number in range(1000):
        admin.set(f"asgi{number}", "x" * 1000)
    admin.config_set("maxmemory-policy", "allkeys-lru")
    admin.config_set("maxmemory", int(admin.info("memory")["used_memory"]) - 200_000)
    admin.config_set("maxmemory", "1gb")
    assert amiss(findings(server.url)) == {"eviction": "warning", "evicted": "warning"}
    admin.config_set("maxmemory-policy", "noeviction")
    found = findings(server.url)
    assert amiss(found) == {"evicted": "note"}
    follow(about(found, "evicted").remedy, server)
    assert amiss(findings(server.url)) == {}


@pytest.mark.parametrize(
    ("facts", "topic"),
    [
        ("evicted_keys:5\r\n", "evicted"),
        ("used_memory:95\r\nmaxmemory:100\r\n", "memory"),
        ("connected_clients:95\r\nmaxclients:100\r\n", "clients"),
    ],
)
def test_facts_that_warn(answering: AnsweringProxy, facts: str, topic: str) -> None:
    answering.say(b"INFO", facts)
    assert amiss(findings(answering.url)) == {topic: "warning"}


def test_a_full_disk(server: Server) -> None:
    steps = refusals.no_disk(server)
    next(steps)
    found = findings(server.url, command_timeout=0.3)
    assert amiss(found) == {"reach": "error", "snapshots": "warning", "send": "error"}
    assert "MISCONF" in about(found, "send").text


def test_too_few_replicas(server: Server) -> None:
    next(refusals.no_replica(server))
    found = findings(server.url, command_timeout=0.3)
    assert amiss(found) == {"send": "error"}
    assert "NOREPLICAS" in about(found, "send").text


@pytest.mark.parametrize(
    ("kind", "limits"),
    [("core", "1mb 0 0"), ("pubsub", "0 1mb 60"), ("pubsub", "1mb 512kb 60")],
)
def test_small_output_buffers(kind: str, limits: str, server: Server) -> None:
    clients = "pubsub" if kind == "pubsub" else "normal"
    name = "client-output-buffer-limit"
    server.client().config_set(name, f"{clients} {limits}")
    found = findings(server.url, kind=kind)
    assert amiss(found) == {"buffers": "warning"}
    follow(about(found, "buffers").remedy, server)
    assert amiss(findings(server.url, kind=kind)) == {}


@pytest.mark.parametrize(("seconds", "level"), [(10, "warning"), (300, "note")])
def test_an_idle_timeout(server: Server, seconds: int, level: str) -> None:
    server.client().config_set("timeout", seconds)
    found = findings(server.url)
    assert amiss(found) == {"timeout": level}
    follow(about(found, "timeout").remedy, server)
    assert amiss(findings(server.url)) == {}


def test_without_config(answering: AnsweringProxy) -> None:
    answering.refuse_to(b"CONFIG", "ERR unknown command 'CONFIG'")
    found = findings(answering.url)
    assert amiss(found) == {"CONFIG GET": "unknown"}
    assert "unknown command" in about(found, "CONFIG GET").text


@pytest.mark.parametrize("ahead", [-90, 90])
@pytest.mark.parametrize("keys", [None, [KEY]])
def test_clocks_apart(answering: AnsweringProxy, ahead: int, keys: Any) -> None:
    answering.be_ahead(ahead)
    found = findings(answering.url, symmetric_encryption_keys=keys)
    assert amiss(found) == {"clock": "warning" if keys else "note"}
    assert "90 s" in about(found, "clock").text


def test_keys_by_their_kinds(valkey: Server) -> None:
    admin = valkey.client()
    for name in (
        "asgi:group:a",
        "asgi:group:b",
        "asgispecific.0123!",
        "asgiworker",
        "asgi:alive:{processes}",
        "other",
        "asgispecific.0123!$inflight",
    ):
        admin.zadd(name, {"member": 1})
    found = findings(valkey.url)
    text = about(found, "keys").text
    for kind in "groups: 2", "processes' channels: 1", "normal channels: 1", "alive: 1":
        assert kind in text
    assert amiss(found) == {"inflight": "note"}
    assert "channels_redis" in about(found, "inflight").text


# Layers of others


def test_a_layer_of_another_package() -> None:
    found = diagnose("default", InMemoryChannelLayer())
    assert amiss(found) == {"servers": "unknown"}
    assert "InMemoryChannelLayer" in about(found, "servers").text
    assert about(found, "group_send").level.value == "ok"


# Other topologies


@EITHER
@pytest.mark.slow
def test_shards(kind: str, valkey: Server, redis62: Server) -> None:
    found = findings(valkey.url, redis62.url, kind=kind)
    assert amiss(found) == {}
    assert len({one.where for one in found if one.topic == "rights"}) == 2


@EITHER
@pytest.mark.slow
def test_tls(kind: str, tls_front: TLSFront, certificates: Certificates) -> None:
    host = {"address": tls_front.url, "ssl_ca_certs": certificates.ca}
    assert amiss(findings(host, kind=kind)) == {}
    host = {"host": tls_front.host, "port": tls_front.port, "ssl": True}
    found = findings({**host, "ssl_ca_certs": certificates.ca}, kind=kind)
    assert about(found, "version").where == tls_front.url
    found = findings(tls_front.url, kind=kind)
    assert "certificate" in about(found, "reach").text
    found = findings(f"redis://{tls_front.host}:{tls_front.port}", kind=kind)
    assert "may speak TLS" in about(found, "reach").text


@EITHER
@pytest.mark.slow
def test_sentinel(kind: str, sentinels: SentinelSet) -> None:
    found = findings(sentinels.host, kind=kind)
    assert amiss(found) == {}
    assert about(found, "replicas").level.value == "ok"
    primary = sentinels.primary  # and not whatever is on this machine's usual port
    primary.client().config_set("timeout", 300)
    follow(about(findings(sentinels.host, kind=kind), "timeout").remedy, primary)
    assert amiss(findings(sentinels.host, kind=kind)) == {}
    limited(primary, *ENOUGH)
    user = {"username": "limited", "password": "secret", "db": 1}
    (one,) = findings({**sentinels.host, **user}, kind=kind)[:-1]
    follow(one.remedy, primary)
    found = findings({**sentinels.host, **user})
    primary.client().acl_deluser("limited")
    assert amiss(found) == {"CONFIG GET": "unknown"}
    away = {**sentinels.host, "master_name": "other"}
    assert "knows no 'other'" in about(findings(away, kind=kind), "reach").text


@EITHER
@pytest.mark.slow
def test_cluster(kind: str, cluster: Cluster) -> None:
    found = findings(cluster.host, kind=kind)
    assert amiss(found) == {}
    assert len([one for one in found if one.topic == "version"]) == 3
    assert about(found, "slots").level.value == "ok"
    for node in cluster.nodes:
        limited(node, *ENOUGH, "+cluster|slots", "+asking", *CLASSIC)
    user = {"username": "limited", "password": "secret"}
    found = findings({**cluster.host, **user}, kind=kind, command_timeout=1)
    for node in cluster.nodes:
        node.client().acl_deluser("limited")
    wrong = [one for one in found if one.level.value == "error"]
    if kind == "pubsub" and not UNSHARDED:
        assert {
            one.text.partition(": ")[2] for one in wrong if one.topic == "rights"
        } == {"+ssubscribe +sunsubscribe +spublish"}
    else:
        assert wrong == []


@pytest.mark.slow
def test_a_cluster_that_serves_in_part(own_primaries: Cluster) -> None:
    own_primaries.nodes[0].client().execute_command("CLUSTER", "DELSLOTS", 0)
    found = findings(own_primaries.host, command_timeout=1)
    assert about(found, "slots").level.value == "error"
