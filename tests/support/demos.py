"""The demo as its users run it: a process that is started, watched and stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from websockets import Origin
from websockets.sync.client import ClientConnection, connect

COMMAND = (sys.executable, "-m", "channels_redis_fast")

# Opens a URL without asking a proxy, whatever the environment says.
get = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, **environment},
    )


def run_without(module: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command where a module is not installed."""
    program = (
        f"import sys; sys.modules[{module!r}] = None; "
        f"from channels_redis_fast.__main__ import main; sys.exit(main([{command!r}]))"
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )


class Demo:
    """A running demo on free ports."""

    def __init__(self, *words: str, environment: Mapping[str, str] | None = None):
        self._words = ("demo", "--port", "0", *words)
        self._environment = {**os.environ, **(environment or {})}
        self.output = ""
        self.urls: list[str] = []
        self.family: list[psutil.Process] = []

    def __enter__(self) -> Demo:
        self._process = subprocess.Popen(
            [*COMMAND, *self._words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
            start_new_session=True,  # a process group that a test can signal
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output += line
            if "Ctrl-C" in line:
                break
        self.urls = re.findall(r"http://\S+", self.output)
        if len(self.urls) < 2:
            self.__exit__()
            raise RuntimeError(f"the demo did not start:\n{self.output}")
        # The launcher, the servers, the keeper of Valkey and Valkey.
        launcher = psutil.Process(self._process.pid)
        self.family = [launcher, *launcher.children(recursive=True)]
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self.ended()

    def interrupt(self) -> None:
        """Do what Ctrl-C in its terminal does."""
        os.killpg(self._process.pid, signal.SIGINT)

    def signal(self, number: signal.Signals) -> None:
        """Send the launcher alone a signal."""
        self._process.send_signal(number)

    def member(self, word: str) -> psutil.Process:
        """The one of its processes whose command line has this word."""
        (found,) = (one for one in self.family if word in " ".join(one.cmdline()))
        return found

    def ended(self) -> int:
        """Wait until the launcher has ended and return its exit status."""
        assert self._process.stdout is not None
        try:
            self.output += self._process.communicate(timeout=30)[0] or ""
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        except ValueError:
            pass  # its output was read to the end before
        return self._process.wait()

    def survivors(self, patience: float = 0) -> list[psutil.Process]:
        """Which of its processes are still there after so many seconds."""
        left = psutil.wait_procs(self.family, patience)[1]
        # An orphan that ended waits for process 1 to take note: no business of ours.
        return [one for one in left if one.status() != psutil.STATUS_ZOMBIE]


def await_present(one: ClientConnection, *members: str) -> None:
    """Wait until the layer counts just those members, named by their ids."""
    while set(hear(one, "present")["ids"]) != set(members):
        pass


def await_crowd(one: ClientConnection, **sizes: int) -> None:
    """Wait until the processes named report so many simulated members each."""
    reported: dict[str, int] = {}
    while reported != sizes:
        state = hear(one, "crowd")
        reported[state["process"]] = state["size"]


def left_in(folder: Path) -> list[str]:
    """The names of what a demo left in its folder for temporary files."""
    return sorted(path.name for path in folder.iterdir())


def chat(
    url: str, room: str = "lobby", name: str = "", **more: str
) -> ClientConnection:
    """A WebSocket in a room, as the page of that server opens it."""
    address = url.removeprefix("http://").rstrip("/")
    query = urllib.parse.urlencode({"name": name, **more})
    uri = f"ws://{address}/ws/room/{room}/?{query}"
    return connect(uri, origin=Origin(f"http://{address}"), proxy=None)


def say(one: ClientConnection, kind: str, **content: Any) -> None:
    """Send what the page would send."""
    one.send(json.dumps({"type": kind, **content}))


def hear(one: ClientConnection, kind: str, **content: Any) -> dict[str, Any]:
    """The next message of this kind and content, whatever comes before it."""
    while True:
        message: dict[str, Any] = json.loads(one.recv(timeout=10))
        if message["type"] == kind and content.items() <= message.items():
            return message
