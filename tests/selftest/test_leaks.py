"""A test that leaves something behind is found out."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading

import pytest

from support.leaks import LoopWatch, Snapshot


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.leaks.PATIENCE", 0.05)


def _leaks(before: Snapshot) -> list[str]:
    return before.leaks(set)


def test_nothing() -> None:
    assert _leaks(Snapshot.take()) == []


def test_socket() -> None:
    before = Snapshot.take()
    with socket.create_server(("127.0.0.1", 0)):
        (leak,) = _leaks(before)
        assert "LISTEN" in leak
    assert _leaks(before) == []


def test_child() -> None:
    before = Snapshot.take()
    with subprocess.Popen(["sleep", "60"]) as child:
        (leak,) = _leaks(before)
        assert leak == f"process {child.pid}: sleep 60"
        assert before.leaks(lambda: {child.pid}) == []
        child.kill()


def test_thread() -> None:
    before = Snapshot.take()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten")
    thread.start()
    assert _leaks(before) == ["thread forgotten"]
    end.set()
    assert _leaks(before) == []


def test_what_ends_soon_is_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.leaks.PATIENCE", 5)
    before = Snapshot.take()
    threading.Timer(0.05, int).start()
    assert _leaks(before) == []


@pytest.fixture
def watch() -> LoopWatch:
    return LoopWatch()


async def test_task(watch: LoopWatch) -> None:
    watch.install(asyncio.get_running_loop())
    task = asyncio.ensure_future(asyncio.sleep(60))
    (leak,) = await watch.leaks()
    assert "sleep" in leak
    task.cancel()


async def test_complaint(watch: LoopWatch) -> None:
    watch.install(asyncio.get_running_loop())

    async def fail() -> None:
        raise ValueError("nobody looks")

    await asyncio.wait({asyncio.ensure_future(fail())})
    (leak,) = await watch.leaks()
    assert "nobody looks" in leak


async def test_provoked_complaint(loop_watch: LoopWatch) -> None:
    asyncio.get_running_loop().call_soon(_fail)
    await asyncio.sleep(0)
    assert len(loop_watch.errors) == 1
    loop_watch.errors.clear()


def _fail() -> None:
    raise ValueError("on purpose")
