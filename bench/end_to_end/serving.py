"""A server process with the site, and what it takes of CPU and memory."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from arena import Failed
from support.polling import until
from support.servers import HOST, free_port

HERE = Path(__file__).parent
PATHS = (HERE, HERE.parent, HERE.parents[1] / "tests")
COMMANDS = {
    "uvicorn": "uvicorn --port={port} --host={host} --log-level=error --lifespan=off",
    "daphne": "daphne --port={port} --bind={host} --verbosity=0",
    "granian": "granian --port={port} --host={host} --interface=asgi --no-log",
}


class Site:
    """One server process (and its workers), to be used in `with`."""

    def __init__(self, server: str, contender: str, redis: tuple[str, int]) -> None:
        self.port = free_port()
        words = COMMANDS[server].format(port=self.port, host=HOST).split()
        inherited = filter(None, [os.environ.get("PYTHONPATH")])
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", *words, "site_app:application"],
            env={
                **os.environ,
                "BENCH_SITE": json.dumps([contender, redis]),
                "PYTHONPATH": os.pathsep.join([*map(str, PATHS), *inherited]),
            },
            stdout=self._log,
            stderr=self._log,
        )

    def __enter__(self) -> Site:
        try:
            until(self._listens, "the server", timeout=30)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        children = self._processes()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(3)
        for process in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._log.close()

    def cpu(self) -> float:
        """Seconds of CPU that it took so far."""
        times = [process.cpu_times() for process in self._processes()]
        return sum(one.user + one.system for one in times)

    def memory(self) -> int:
        """Bytes that it has resident."""
        return sum(process.memory_info().rss for process in self._processes())

    def _processes(self) -> list[psutil.Process]:
        try:
            main = psutil.Process(self._process.pid)
            return [main, *main.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _listens(self) -> bool:
        if self._process.poll() is not None:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace")
            raise Failed(f"the server ended: {said[-500:]}")
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0
