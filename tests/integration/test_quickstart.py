"""docs/quickstart.md: its commands and files, as they stand there, give a chat."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sysconfig
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from websockets import Origin
from websockets.sync.client import ClientConnection, connect

from channels_redis_fast.demo.valkey import free_port
from support import demos
from support.paths import DOCS
from support.polling import until

pytestmark = pytest.mark.slow

BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```$",
    (DOCS / "quickstart.md").read_text(),
    re.MULTILINE | re.DOTALL,
)
SERVE, *SERVERS = [
    line
    for kind, text in BLOCKS
    for line in text.splitlines()
    if kind == "sh" and line.startswith(("python -m", "uvicorn"))
]
PORT = "6379"


class Process:
    """One of the page's commands, in the folder of the site."""

    def __init__(self, command: str, folder: Path) -> None:
        self._process = subprocess.Popen(shlex.split(command), cwd=folder, env=PATHS)

    def stop(self) -> None:
        """What Ctrl-C does."""
        self._process.terminate()
        self._process.wait(30)


SCRIPTS = sysconfig.get_path("scripts")
PATHS = {**os.environ, "PATH": os.pathsep.join([SCRIPTS, os.environ["PATH"]])}


@contextmanager
def running(command: str, folder: Path) -> Iterator[Process]:
    """A command that is stopped afterwards."""
    process = Process(command, folder)
    try:
        yield process
    finally:
        process.stop()


def write_files(folder: Path, port: int) -> None:
    """Those of the page, with another port of Redis."""
    for _, text in BLOCKS:
        if named := re.match(r"# (\S+\.py)(, at the end)?\n", text):
            path = folder / named[1]
            before = path.read_text() if named[2] else ""
            path.write_text(before + text.replace(PORT, str(port)))


def answers(url: str) -> bool:
    try:
        with demos.get(url) as page:
            return "new WebSocket" in page.read().decode()
    except urllib.error.URLError:
        return False


def chat(port: int) -> ClientConnection:
    """A WebSocket as the page opens it."""
    address = f"127.0.0.1:{port}"
    origin = Origin(f"http://{address}")
    return connect(f"ws://{address}/ws/", origin=origin, proxy=None)


def test_the_quickstart(tmp_path: Path) -> None:
    (start,) = re.findall(r"^django-admin .*$", BLOCKS[0][1], re.MULTILINE)
    subprocess.run(shlex.split(start), cwd=tmp_path, env=PATHS, check=True)
    redis_port = free_port()
    write_files(tmp_path, redis_port)
    serve = f"{SERVE} --port {redis_port}"
    assert len(SERVERS) == 2
    ports = [free_port() for _ in SERVERS]
    with ExitStack() as stack:
        first = stack.enter_context(running(serve, tmp_path))
        for command, port in zip(SERVERS, ports, strict=True):
            named = re.sub(r"--port \d+", f"--port {port}", command)
            stack.enter_context(running(named, tmp_path))
        for port in ports:
            until(lambda: answers(f"http://127.0.0.1:{port}/"), "the page")  # noqa: B023
        one, other = (stack.enter_context(chat(port)) for port in ports)
        say(one, [one, other], "hello")
        say(other, [one, other], "<b>hi</b>")
        # And without Redis for a moment.
        first.stop()
        stack.enter_context(running(serve, tmp_path))
        with redis.Redis(port=redis_port, retry=None) as client:
            until(lambda: members(client) == 2, "both members to be back")
        say(one, [one, other], "still here")


def members(client: redis.Redis) -> int:
    """How many the group has, if Redis answers."""
    try:
        return int(client.zcard("asgi:group:lobby"))
    except redis.ConnectionError:
        return 0


def say(
    speaker: ClientConnection, listeners: list[ClientConnection], text: str
) -> None:
    """What one writes, all see."""
    demos.say(speaker, "x", text=text)
    for listener in listeners:
        assert f'"text": "{text}"' in listener.recv(timeout=10)
