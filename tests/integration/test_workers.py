"""Both layers in a real Celery worker and under gunicorn, which fork after use."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.layers import soon
from support.paths import TESTS
from support.polling import eventually
from support.programs import missing
from support.servers import HOST, Server, free_port
from support.syncing import KINDS, accepted

pytestmark = pytest.mark.slow

TASKS = 40


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def running(
    directory: Path, kind: str, server: Server, *arguments: str, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker, which has to end in peace when told to."""
    for module in (arguments[1], *environment.get("GEVENT", "").split()):
        if importlib.util.find_spec(module) is None:
            missing(f"the package {module}")
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=TESTS,
            env={
                **os.environ,
                "LAYER": kind,
                "HOSTS": json.dumps([server.url]),
                "PYTHONWARNINGS": "default",
                **environment,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
        process.terminate()
        assert process.wait(20) == 0, log.read_text()[-3000:]
    except BaseException:
        process.kill()
        process.wait()
        print(log.read_text()[-3000:])
        raise
    assert "Traceback" not in log.read_text(), log.read_text()[-3000:]


async def everything(kind: str, server: Server, ways: int, post: Any) -> set[int]:
    """Has all tasks done; the processes that did them."""
    layer = KINDS[kind](hosts=[server.url], capacity=10_000)
    try:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        parent = (await soon(layer, "started", 30))["pid"]
        await asyncio.to_thread(post, range(2))
        for _ in range(2):
            await soon(layer, "answers", 30)
        warm = accepted(server)
        await asyncio.to_thread(post, range(2, TASKS))
        answers = [await soon(layer, "answers", 30) for _ in range(TASKS - 2)]
        got = [await soon(layer, name) for _ in range(TASKS * ways)]
        found = sorted((one["n"], one["way"]) for one in got)
        expected = ["drop-in", "sync"][-ways:]
        assert found == [(n, way) for n in range(TASKS) for way in expected]
        # A connection per worker or greenlet, not one per task.
        assert accepted(server) - warm <= 8
        pids = {answer["pid"] for answer in answers}
        assert parent not in pids or ways == 1
        return pids
    finally:
        await layer.close_pools()


def celery(tmp_path: Path, *options: str) -> tuple[str, ...]:
    """The command line of a worker."""
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    return ("-m", "celery", "-A", "support.sync_apps", "worker", *quiet, *options)


def post_tasks(directory: Path) -> Any:
    """Puts tasks into the worker's queue, from a process of its own."""
    code = (
        "import sys; from celery import Celery; app = Celery(broker='filesystem://')\n"
        "app.conf.broker_transport_options = dict.fromkeys(\n"
        "    ('data_folder_in', 'data_folder_out', 'control_folder'), sys.argv[1])\n"
        "for n in sys.argv[2:]: app.send_task('work', [int(n)])\n"
    )

    def post(numbers: range) -> None:
        arguments = [str(directory), *map(str, numbers)]
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=60)

    return post


async def test_celery_prefork(kind: str, valkey: Server, tmp_path: Path) -> None:
    broker = tmp_path / "broker"
    broker.mkdir()
    command = celery(tmp_path, "-P", "prefork", "-c", "2")
    with running(tmp_path, kind, valkey, *command, BROKER=str(broker)):
        pids = await everything(kind, valkey, 2, post_tasks(broker))
        assert 1 <= len(pids) <= 2


async def test_celery_gevent(kind: str, valkey: Server, tmp_path: Path) -> None:
    """Greenlets: blocking calls let the others go on; asgiref refuses to nest."""
    broker = tmp_path / "broker"
    broker.mkdir()
    command = celery(tmp_path, "-P", "gevent", "-c", "8")
    environment = {"BROKER": str(broker), "GEVENT": "gevent"}
    with running(tmp_path, kind, valkey, *command, **environment):
        assert len(await everything(kind, valkey, 1, post_tasks(broker))) == 1


async def test_gunicorn(kind: str, valkey: Server, tmp_path: Path) -> None:
    port = free_port()
    command = ("-m", "gunicorn", "--preload", "-w", "2", "-b", f"{HOST}:{port}")

    def post(numbers: range) -> None:
        for n in numbers:
            with urllib.request.urlopen(f"http://{HOST}:{port}/{n}", timeout=10) as got:
                assert got.read() == b"sent"

    def listens() -> bool:
        with open("/proc/net/tcp") as table:
            return f":{port:04X} 00000000:0000 0A" in table.read()

    with running(tmp_path, kind, valkey, *command, "support.sync_apps:application"):
        await eventually(listens, "gunicorn to listen", timeout=30)
        assert 1 <= len(await everything(kind, valkey, 2, post)) <= 2
