"""Blocking calls when Redis restarts, is silent, fails over or moves slots; at exit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from redis import exceptions as errors

from channels_redis_fast.client.blocking_pool import BlockingConnection
from support.clusters import Cluster, slot_of
from support.paths import TESTS
from support.polling import until
from support.proxy import Proxy
from support.sentinels import SentinelSet
from support.servers import Server
from support.syncing import KINDS, accepted, blocking, in_threads, signals

LOST = (errors.ConnectionError, errors.TimeoutError)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# `make test` does with one where servers are started for each.
one_kind = pytest.mark.parametrize(
    "kind", ["core", pytest.param("pubsub", marks=pytest.mark.slow)], indirect=True
)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails when it takes longer, with a second for a busy machine."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds + 1, took


# At most once, and not less for a restart


def test_a_restart_between_two_calls(kind: str, server: Server) -> None:
    """The connections that it ended are not used: no call fails, none is doubled."""
    with blocking(kind, server.url) as layer:
        in_threads(8, lambda n: layer.sync.send("worker", {"n": n}), 50)
        server.restart(empty=True)
        for n in range(20):
            layer.sync.send("worker", {"n": n})
            layer.sync.group_send("room", {"n": n})
        got = [layer.sync.receive("worker", 5)["n"] for _ in range(20)]
        assert got == list(range(20))


@pytest.mark.parametrize("at", range(0, 400, 40))
def test_a_cut_in_the_middle(
    valkey: Server, start_proxy: Callable[..., Proxy], at: int
) -> None:
    """What was written is not written again; what failed may have arrived, once."""
    proxy = start_proxy(valkey)
    with blocking("core", proxy.url) as layer:
        layer.sync.send("worker", {"n": -1})
        proxy.requests.cut_after(at)
        failed = set()
        for n in range(10):
            try:
                layer.sync.send("worker", {"n": n})
            except LOST:
                failed.add(n)
        got = [layer.sync.receive("worker", 5)["n"] for _ in range(11 - len(failed))]
        assert len(failed) <= 1
        assert got == sorted(set(got))
        assert {*range(10)} - failed <= set(got)


def test_an_answer_that_is_lost(
    valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    """The message has arrived, and the sender can't know: an error, and one message."""
    proxy = start_proxy(valkey)
    with blocking("core", proxy.url) as layer:
        layer.sync.send("worker", {"n": 1})
        proxy.replies.cut_after(0)
        with pytest.raises(LOST):
            layer.sync.send("worker", {"n": 2})
        assert [layer.sync.receive("worker", 5)["n"] for _ in range(2)] == [1, 2]
        proxy.replies.cut_after(0)
        layer.sync.group_add("room", "worker")  # harmless to repeat
        layer.sync.group_send("room", {"n": 3})
        assert layer.sync.receive("worker", 5) == {"n": 3}
        with pytest.raises(TimeoutError):
            layer.sync.receive("worker", 0.1)


# A clear error in time


WAYS: dict[str, Callable[[Any], Callable[[], Any]]] = {
    "send": lambda layer: lambda: layer.sync.send("worker", {}),
    "group_send": lambda layer: lambda: layer.sync.group_send("room", {}),
    "receive": lambda layer: lambda: layer.sync.receive("worker"),
    "async_to_sync": lambda layer: lambda: async_to_sync(layer.send)("worker", {}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_silent", [False, True], ids=["down", "silent"])
def test_no_redis(kind: str, way: str, is_silent: bool, server: Server) -> None:
    with blocking(kind, server.url, command_timeout=0.5) as layer:
        call = WAYS[way](layer)
        for _ in range(2):
            layer.sync.send("worker", {})
        if way == "receive":
            call()
            call()
        server.pause() if is_silent else server.kill()
        for _ in range(2):  # a connection that was there, and a new one
            # A wait at the server takes a second at least.
            with within(1.5 if way == "receive" else 0.5), pytest.raises(LOST):
                call()
        if is_silent:
            server.resume()


def test_a_silent_connection_that_was_idle(
    valkey: Server, start_proxy: Callable[..., Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked before it is used: the call gets another one."""
    monkeypatch.setattr("channels_redis_fast.client.blocking_pool._ASK_AFTER", 0.0)
    proxy = start_proxy(valkey)
    with blocking("core", proxy.url, command_timeout=1.0) as layer:
        layer.sync.send("worker", {"n": 1})
        before = accepted(valkey)
        layer.sync.send("worker", {"n": 2})
        assert accepted(valkey) == before
        proxy.requests.hold()
        waiting = threading.Timer(0.7, proxy.requests.release)
        waiting.start()
        layer.sync.send("worker", {"n": 3})
        waiting.join()
        assert [layer.sync.receive("worker", 5)["n"] for _ in range(3)] == [1, 2, 3]


def test_receive_rides_out_a_restart(server: Server) -> None:
    with blocking("core", server.url) as layer:
        own = layer.sync.new_channel()

        def restart() -> None:
            until(
                lambda: (
                    "cmd=bzpopmin" in str(server.client().client_list()).lower()
                    or any(
                        c["cmd"] == "bzpopmin" for c in server.client().client_list()
                    )
                ),
                "the wait",
            )
            server.restart(empty=True)
            layer.sync.send(own, {"n": 1})

        thread = threading.Thread(target=restart)
        thread.start()
        assert layer.sync.receive(own, 10) == {"n": 1}
        thread.join()


def test_members_come_back_when_data_is_lost(server: Server) -> None:
    with blocking("core", server.url) as layer:
        own = layer.sync.new_channel()
        layer.sync.group_add("room", own)
        server.restart(empty=True)
        layer.sync.group_send("room", {"n": 1})
        assert layer.sync.receive(own, 5) == {"n": 1}


# Topologies


@one_kind
def test_a_failover(own_sentinels: SentinelSet, kind: str) -> None:
    with blocking(kind, own_sentinels.host, command_timeout=3.0) as layer:
        layer.sync.send("worker", {"n": 0})
        own_sentinels.failover()
        for n in range(1, 5):
            until(lambda n=n: _sends(layer, n), "the new primary", timeout=20)
        got = [layer.sync.receive("worker", 5)["n"] for _ in range(4)]
        assert got in ([0, 1, 2, 3], [1, 2, 3, 4])  # a failover may lose the last


def _sends(layer: Any, n: int) -> bool:
    try:
        layer.sync.send("worker", {"n": n})
    except LOST:
        return False
    return True


@one_kind
def test_a_node_dies(own_cluster: Cluster, kind: str) -> None:
    with blocking(kind, own_cluster.host, command_timeout=2.0) as layer:
        key = "asgiworker"
        layer.sync.send("worker", {"n": 0})
        own_cluster.kill_primary_of(key)
        until(lambda: _sends(layer, 1), "the new primary", timeout=20)
        assert layer.sync.receive("worker", 5)["n"] in (0, 1)


def test_slots_move_under_batches(own_primaries: Cluster) -> None:
    """Nothing is lost, doubled or out of order, one call for all or one for each."""
    with blocking("core", own_primaries.host, capacity=10**6) as layer:
        slot = slot_of("asgiworker")
        source = own_primaries.node_of_slot(slot)
        target = next(n for n in own_primaries.primaries if n is not source)
        layer.sync.send_many([("worker", {"n": n}) for n in range(40)])
        sent = 40
        own_primaries.migrate_slot(slot, target)
        outcomes = layer.sync.send_many(
            [
                ("worker", {"n": sent + n // 2}) if n % 2 else (f"other{n}", {})
                for n in range(80)
            ]
        )
        assert outcomes == [None] * 80
        sent += 40
        got = [layer.sync.receive("worker", 5)["n"] for _ in range(sent)]
        assert got == list(range(sent))


def test_one_full_channel_among_many(kind: str, valkey: Server) -> None:
    with blocking(kind, valkey.url, channel_capacity={"small": 2}) as layer:
        pairs = [(name, {"n": n}) for n in range(4) for name in ("small", "large")]
        outcomes = layer.sync.send_many([*pairs, ("bad name", {}), ("large", 5)])
        assert [type(o) for o in outcomes[4:8:2]] == [ChannelFull, ChannelFull]
        assert all(isinstance(o, TypeError) for o in outcomes[8:])
        assert {*outcomes[:4], *outcomes[5:8:2]} == {None}
        got = [layer.sync.receive("large", 5)["n"] for _ in range(4)]
        assert got == [0, 1, 2, 3]


# Odd places


@pytest.mark.parametrize("method", ["send", "group_add", "group_send", "receive"])
def test_in_a_signal_handler(valkey: Server, method: str) -> None:
    """It may interrupt a call in any place; both end."""
    with blocking("core", valkey.url) as layer:
        own = layer.sync.new_channel()
        calls = {
            "send": lambda: layer.sync.send("worker", {}),
            "group_add": lambda: layer.sync.group_add("room", own),
            "group_send": lambda: layer.sync.group_send("room", {}),
            "receive": lambda: layer.sync.receive("never", 0),
        }
        handled: list[int] = []

        def handle() -> None:
            with _allowed():
                calls[method]()
            handled.append(1)

        with signals(handle, 0.002):
            while len(handled) < 50:
                with _allowed():
                    layer.sync.group_add("room", own)
                    layer.sync.send("worker", {})
                    layer.sync.receive("worker", 1)
        layer.sync.send("last", {"n": 1})
        assert layer.sync.receive("last", 5) == {"n": 1}


def test_in_a_signal_handler_while_groups_are_restored(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, pending = BlockingConnection.write, [signal.SIGUSR1]

    def interrupted(self: BlockingConnection, commands: Any, deadline: float) -> None:
        if commands[0][0] == b"EVAL" and pending:
            signal.raise_signal(pending.pop())
        write(self, commands, deadline)

    with blocking("core", server.url) as layer:
        own = layer.sync.new_channel()
        layer.sync.group_add("room", own)
        server.restart(empty=True)
        monkeypatch.setattr(BlockingConnection, "write", interrupted)
        before = signal.signal(
            signal.SIGUSR1, lambda *_: layer.sync.send("worker", {"n": 1})
        )
        try:
            layer.sync.group_send("room", {"n": 2})
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert not pending
        assert layer.sync.receive("worker", 5) == {"n": 1}
        assert layer.sync.receive(own, 5) == {"n": 2}


class _allowed:
    """Full channels and empty ones are not what is looked for."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, (ChannelFull, TimeoutError))


def receive_for_ever(layer: Any, timeout: float) -> None:
    while True:
        with _allowed():
            layer.sync.receive("never", timeout)


# In the middle of connecting it leaves redis-py's socket to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.serial
def test_an_exception_in_the_middle(valkey: Server) -> None:
    """As Celery's soft time limit raises it: the connection is not used again."""

    class Limit(Exception):
        pass

    def limit() -> None:
        if within_limit:
            within_limit.clear()
            raise Limit

    within_limit: list[int] = []
    with blocking("core", valkey.url) as layer, signals(limit, 0.003):
        own = layer.sync.new_channel()
        for n in range(30):
            within_limit.append(n)
            with pytest.raises(Limit):
                receive_for_ever(layer, 0.001 if n % 2 else 1.0)
        layer.sync.send(own, {"n": 1})
        assert layer.sync.receive(own, 5) == {"n": 1}


AT_EXIT = """
import atexit, sys, threading
from asgiref.sync import async_to_sync
from channels_redis_fast.{kind} import {name}
layer = {name}(hosts=[{url!r}], command_timeout=1)
{before}
def last():
    layer.sync.send("worker", {{"n": 1}})
    try:
        async_to_sync(layer.send)("worker", {{"n": 2}})
    except Exception as error:
        print("refused:", error)
atexit.register(last)
class Late:
    def __del__(self):
        try:
            layer.sync.send("worker", {{"n": 3}})
        except Exception as error:
            print("late:", error)
sys.late = Late()
"""


@pytest.mark.parametrize("before", ["", 'layer.sync.send("before", {})'])
@pytest.mark.slow
def test_after_the_interpreter_began_to_exit(
    kind: str, valkey: Server, before: str
) -> None:
    name = KINDS[kind].__name__
    code = AT_EXIT.format(kind=kind, name=name, url=valkey.url, before=before)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=TESTS,
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "refused: cannot schedule new futures" in done.stdout  # asgiref's words
    with blocking(kind, valkey.url) as layer:
        assert layer.sync.receive("worker", 5) == {"n": 1}
