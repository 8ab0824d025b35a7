"""`channel_layer check`: what a user lacks, and who gives it to them how."""

from __future__ import annotations

import re
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from channels_redis_fast.client.host import Host
from channels_redis_fast.commands import publishing
from channels_redis_fast.diagnosis import rights
from channels_redis_fast.diagnosis import server as diagnosis_server
from channels_redis_fast.diagnosis.finding import redis_cli
from support.answering import AnsweringProxy
from support.diagnosing import (
    CLASSIC,
    ENOUGH,
    NEEDED,
    about,
    amiss,
    findings,
    follow,
    limited,
    rights_of,
)
from support.paths import DOCS
from support.servers import Server
from support.syncing import KINDS, blocking

EITHER = pytest.mark.parametrize("kind", KINDS)


def test_they_are_those_of_the_page() -> None:
    text = (DOCS / "hosts.md").read_text()
    block = re.search(r"\n\n((?:    \+.*\n)+)\n", text)
    assert block is not None
    assert set(block[1].split()) == {*NEEDED, "+info"}
    sharded = [f"+{verb.decode().lower()}" for verb in publishing.SHARDED]
    for each in (CLASSIC, sharded):
        assert {*each} == {*each} & set(re.findall(r"\+[a-z|]+", text))


@EITHER
def test_no_more_rights_than_needed(kind: str, any_server: Server) -> None:
    more = CLASSIC if kind == "pubsub" else []
    found = findings(limited(any_server, *ENOUGH, *more), kind=kind)
    any_server.client().acl_deluser("limited")
    # What is asked beyond what the layer needs is not known.
    assert amiss(found) == {"CONFIG GET": "unknown"}
    assert "limited +config|get" in about(found, "CONFIG GET").remedy.replace("'", "")


@pytest.mark.parametrize("right", [*NEEDED, "~asgi*"])
def test_a_right_that_is_missing(right: str, valkey: Server) -> None:
    host = limited(valkey, *(rule for rule in ENOUGH if rule != right))
    (one,) = rights_of(host)
    assert one.level.value == "error"
    assert one.text.endswith(f": {right}")
    follow(one.remedy, valkey)
    found = rights_of(host)
    valkey.client().acl_deluser("limited")
    assert amiss(found) == {}


@pytest.mark.parametrize("right", [*CLASSIC, "&asgi*"])
def test_a_right_of_pubsub_that_is_missing(right: str, any_server: Server) -> None:
    rules = [rule for rule in [*ENOUGH, *CLASSIC] if rule != right]
    (one,) = rights_of(limited(any_server, *rules), kind="pubsub")
    any_server.client().acl_deluser("limited")
    assert one.text.endswith(f": {right}")


@pytest.mark.parametrize("right", ["+info", "+scan", "+unlink"])
def test_a_right_that_is_wanted(right: str, valkey: Server) -> None:
    host = limited(valkey, *(rule for rule in ENOUGH if rule != right))
    found = findings(host)
    (one,) = (one for one in found if one.topic == "rights" and right in one.remedy)
    assert one.level.value == "note"
    unknown = {topic for topic, level in amiss(found).items() if level == "unknown"}
    looked = {"+info": "INFO", "+scan": "SCAN"}.get(right)
    assert unknown == {"CONFIG GET", *([looked] if looked else [])}
    for topic in unknown:
        follow(about(found, topic).remedy, valkey)
    found = findings(host)
    valkey.client().acl_deluser("limited")
    assert amiss(found) == ({} if looked else {"rights": "note"})


def test_a_database_that_may_not_be_selected(valkey: Server) -> None:
    found = findings({**limited(valkey, *ENOUGH), "db": 2})
    valkey.client().acl_deluser("limited")
    assert amiss(found) == {"reach": "error", "messages": "unknown"}
    assert "SETUSER limited +select" in about(found, "reach").remedy


@pytest.mark.parametrize(
    ("where", "at"),
    [
        ("a:1", "-u redis://a:1"),
        ("rediss://a:1/2", "-u rediss://a:1/2"),
        ("unix:///run/redis.sock", "-s /run/redis.sock"),
        ("sentinel master main", "-u redis://PRIMARY"),  # no command for localhost
    ],
)
def test_where_a_command_goes(where: str, at: str) -> None:
    assert redis_cli(where, "PING") == f"redis-cli {at} PING"


@pytest.mark.parametrize(
    ("host", "user"),
    [
        ({"host": "a"}, "default"),
        ({"address": "redis://some%20body:pw@a"}, "some body"),
        ({"cluster": [("a", 1)], "username": "site"}, "site"),
        ({"host": "a", "credential_provider": object()}, "NAME"),
    ],
)
def test_who_is_given_rights(host: dict[str, Any], user: str) -> None:
    assert diagnosis_server.user_of(Host(host, 1.0)) == user


def test_a_server_that_goes_meanwhile(valkey: Server) -> None:
    with AnsweringProxy(valkey) as proxy, blocking("core", proxy.url) as layer:
        (pool,) = layer._blocking.shards[0].primaries(0.0)
        server = diagnosis_server.Server(pool, 0.5)
        assert server.ask("PING") == b"PONG"
        proxy.refuse()
        proxy.cut()
        look = rights.look_at_rights(
            server, "asgi", is_cluster=False, is_pubsub=False, is_sharded=False
        )
        with pytest.raises(ConnectionError):
            list(look)
