"""Each error of the table, on each method: what a caller sees, and a consumer.

`pytest tests/faults/test_errors.py --write-docs` writes what they saw to
docs/errors.md, which is held to it otherwise.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis import exceptions as errors

from channels_redis_fast.commands.errors import CODES, Kind, kind_of, reply_error
from channels_redis_fast.types import SendResult
from support.clusters import Cluster
from support.layers import call, end
from support.paths import DOCS
from support.polling import eventually
from support.refusing import DATA, POPS, RefusingProxy
from support.servers import Server, kept
from support.syncing import KINDS

PAGE = DOCS / "errors.md"
TIMEOUT = 0.6  # seconds; command_timeout
RETRIED = (Kind.PASSING, Kind.DEMOTED, Kind.MOVED)


class Place:
    """A server, or a Cluster of one node, behind a proxy that refuses."""

    def __init__(self, proxy: RefusingProxy, is_cluster: bool) -> None:
        self.proxy = proxy
        self.is_cluster = is_cluster

    @property
    def host(self) -> Any:
        """The entry of `hosts`."""
        if self.is_cluster:
            return {"cluster": [self.proxy.address]}
        return self.proxy.url

    def text(self, code: str) -> str:
        """An error as the server words it."""
        if CODES[code].kind is Kind.MOVED:
            return f"{code} 1 {self.proxy.host}:{self.proxy.port}"
        return f"{code} as the test wants"


@pytest.fixture(scope="module")
def single() -> Iterator[Place]:
    with Server() as server, RefusingProxy(server) as proxy:
        yield Place(proxy, False)


@pytest.fixture(scope="module")
def one_node() -> Iterator[Place]:
    with Cluster(primaries=1, replicas=False) as cluster:
        (node,) = cluster.nodes
        with RefusingProxy(node) as proxy:
            node.client().config_set("cluster-announce-port", proxy.port)
            yield Place(proxy, True)


# Servers of the module begin before what is looked at for leaks.
PLACES = ["single", pytest.param("one_node", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=PLACES)
def either(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def place(either: Place, request: pytest.FixtureRequest) -> Place:
    """Where the layer is connected to; empty."""
    found, code = either, request.getfixturevalue("code")
    if CODES[code].kind is Kind.MOVED and not found.is_cluster:
        pytest.skip("only nodes of Clusters say so: see test_redirections.py")
    found.proxy.target.flush()  # type: ignore[attr-defined]
    return found


def verbs_of(code: str) -> frozenset[bytes]:
    """The commands that can get an error."""
    if code == "NOSCRIPT":
        return frozenset((b"EVALSHA",))
    return DATA - POPS if code == "OOM" else DATA


def calls_of(kind: str, group: str) -> dict[str, tuple[Any, ...]]:
    """The methods that may be refused, with what they are called with."""
    message = {"type": "x"}
    calls: dict[str, tuple[Any, ...]] = {
        "send": ("jobs", message),
        "group_send": (group, message),
        "send_many": ([("jobs", message), ("more", message)],),
        "group_send_many": ([(group, message)],),
    }
    if kind == "core":
        calls["group_add"] = (group, "jobs")
        calls["group_discard"] = (group, "other")
    return calls


def outcome(answer: Any) -> Exception | None:
    """What a call raised, or said of its messages."""
    if isinstance(answer, list):
        found = {type(one): one for one in answer}
        assert len(found) == 1, answer
        answer = answer[0]
    if isinstance(answer, SendResult):
        return None
    assert answer is None or isinstance(answer, Exception)
    return answer


def is_retried(code: str, place: Place) -> bool:
    """Whether it is tried again as long as it lasts."""
    kind = CODES[code].kind
    return kind in RETRIED and (kind is not Kind.MOVED or place.is_cluster)


def check(seen: dict[str, Exception | None], code: str, wanted: bool) -> None:
    """Whether all calls raised the error, or none.

    The last attempt may be one that the time is too short for.
    """
    for method, error in seen.items():
        if wanted and CODES[code].kind in RETRIED and kind_of(error) is Kind.LOST:
            continue
        if wanted:
            assert type(error) is CODES[code].raised, (method, error)
        else:
            assert error is None, (method, error)


CODES_HERE = [code for code in CODES if code not in ("UNBLOCKED",)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", CODES_HERE)
async def test_awaited(
    code: str, kind: str, place: Place, request: pytest.FixtureRequest
) -> None:
    layer, hasty = (
        KINDS[kind](hosts=[place.host], command_timeout=timeout)
        for timeout in (30, TIMEOUT)
    )
    text, verbs = place.text(code), verbs_of(code)

    async def call_all(layer: Any) -> dict[str, Exception | None]:
        calls = calls_of(kind, "room")
        work = [getattr(layer, method)(*args) for method, args in calls.items()]
        answers = await asyncio.gather(*work, return_exceptions=True)
        return dict(zip(calls, map(outcome, answers), strict=True))

    name = await layer.new_channel()
    await layer.group_add("room", name)
    check(await call_all(layer), code, wanted=False)
    assert await asyncio.wait_for(layer.receive(name), 5) == {"type": "x"}
    await layer.flush()
    await layer.group_add("room", name)
    waiting = [asyncio.create_task(layer.receive(c)) for c in (name, "worker")]
    # For a while
    retried = is_retried(code, place) or code == "NOSCRIPT"
    with place.proxy.refusing(text, verbs):
        began = asyncio.create_task(call_all(layer))
        before = place.proxy.requests.refused
        await eventually(lambda: place.proxy.requests.refused > before, "a refusal")
        await asyncio.sleep(0.1 if retried else 0)
        if not retried:
            check(await began, code, wanted=True)
    check(await began, code, wanted=not retried)
    # For long
    if retried and code != "NOSCRIPT":
        check(await call_all(hasty), code, wanted=False)
        with place.proxy.refusing(text, verbs):
            start = time.monotonic()
            check(await call_all(hasty), code, wanted=True)
            assert TIMEOUT / 4 < time.monotonic() - start < TIMEOUT * 2
    await consumers_saw(layer, waiting, name, code, retried or code == "OOM")
    await layer.close_pools()
    await hasty.close_pools()
    note(code, retried, request.config.getoption("--write-docs"))


async def consumers_saw(
    layer: Any, waiting: list[asyncio.Task[Any]], name: str, code: str, waits: bool
) -> None:
    """Those who wait get the next message, or the error."""
    if waits:
        for channel, task in zip((name, "worker"), waiting, strict=True):
            if not task.done():
                await layer.send(channel, {"type": "x"})
            assert await asyncio.wait_for(task, 5) == {"type": "x"}
    await end(*waiting)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", CODES_HERE)
def test_blocking(code: str, kind: str, place: Place) -> None:
    layer = KINDS[kind](hosts=[place.host], command_timeout=TIMEOUT)
    text, verbs = place.text(code), verbs_of(code)
    retried = is_retried(code, place)

    def call(method: str, args: tuple[Any, ...]) -> Exception | None:
        try:
            return outcome(getattr(layer.sync, method)(*args))
        except errors.RedisError as error:
            return error

    calls = calls_of(kind, "room")
    if kind == "core":
        layer.sync.group_add("room", "worker")
    check({m: call(m, args) for m, args in calls.items()}, code, wanted=False)
    with place.proxy.refusing(text, verbs):
        start = time.monotonic()
        for method, args in calls.items():
            check({method: call(method, args)}, code, wanted=code != "NOSCRIPT")
            if retried and method == "send":
                assert TIMEOUT / 4 < time.monotonic() - start < TIMEOUT * 2
                break  # the others would take as long
    check({m: call(m, args) for m, args in calls.items()}, code, wanted=False)
    layer.sync.close()


def note(code: str, retried: bool, write: bool) -> None:
    """Holds the page to what was seen, or writes it there."""
    row = CODES[code]
    caller = f"`{row.raised.__name__}` at once"
    consumer = "the same"
    if row.kind is Kind.UNKNOWN:
        caller, consumer = "nothing", "nothing"
    elif retried:
        caller = f"it waits; after `command_timeout`, `{row.raised.__name__}`"
        consumer = "it waits, however long"
    elif row.kind is Kind.FULL:
        consumer = "nothing: reading frees memory"
    elif row.kind is Kind.MOVED:
        return  # of a Cluster's node that is configured as a server
    line = f"| `{code}` | {row.why} | {caller} | {consumer} |"
    if write:
        lines = PAGE.read_text().splitlines()
        lines = [line if one.startswith(f"| `{code}` |") else one for one in lines]
        PAGE.write_text("\n".join(lines) + "\n")
    assert line in PAGE.read_text()


def test_the_table_is_whole() -> None:
    """Each code has a row, and its class and kind are found again from its text."""
    page = PAGE.read_text()
    for code, row in CODES.items():
        assert f"| `{code}` |" in page
        text = f"{code} 1 h:1" if row.kind is Kind.MOVED else f"{code} and more"
        error = reply_error(text)
        assert type(error) is row.raised
        assert kind_of(error) is row.kind
        in_script = f"ERR Error running script (call to f_0): @user_script:1: -{text}"
        assert kind_of(reply_error(in_script)) is row.kind


@pytest.mark.parametrize("text", ["MOVED", "ASK nowhere", "FOO bar", "", "MOVED 1 x"])
def test_what_nobody_says_is_final(text: str) -> None:
    assert kind_of(reply_error(text)) is Kind.FINAL


@pytest.mark.parametrize("way", ["loop", "thread"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "code",
    [
        "LOADING",
        *(
            pytest.param(code, marks=pytest.mark.slow)
            for code in ("MASTERDOWN", "BUSY", "CLUSTERDOWN")
        ),
    ],
)
async def test_flush(code: str, kind: str, way: str, place: Place) -> None:
    """It waits as other calls do, whichever of its commands is refused."""
    patient, layer = (
        KINDS[kind](hosts=[place.host], command_timeout=timeout)
        for timeout in (30, TIMEOUT)
    )
    target: Any = place.proxy.target

    # For a while
    await patient.send("jobs", {"type": "x"})
    await asyncio.to_thread(patient.sync.send, "more", {"type": "x"})
    with place.proxy.refusing(place.text(code), frozenset((b"SCAN",))):
        flushing = asyncio.create_task(call(patient, way, "flush"))
        before = place.proxy.requests.refused
        await eventually(lambda: place.proxy.requests.refused > before, "a refusal")
    await flushing
    with redis.Redis(target.host, target.port) as client:
        assert not kept(client)
    # For long
    for verb in b"SCAN", b"UNLINK":
        await layer.send("jobs", {"type": "x"})
        flushing = asyncio.create_task(call(layer, way, "flush"))
        with place.proxy.refusing(place.text(code), frozenset((verb,))):
            (error,) = await asyncio.gather(flushing, return_exceptions=True)
        check({"flush": error}, code, wanted=True)
    for each in patient, layer:
        await each.close_pools()
        await asyncio.to_thread(each.sync.close)
