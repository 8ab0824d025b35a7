"""The site of `socket_apps.py`, run by each of the ASGI servers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from support.paths import TESTS
from support.polling import until
from support.servers import HOST, free_port

APP = "support.socket_apps:application"
COMMANDS = {
    "uvicorn websockets": ["uvicorn", "--port={port}", "--ws=websockets", APP],
    "uvicorn sansio": ["uvicorn", "--port={port}", "--ws=websockets-sansio", APP],
    "uvicorn wsproto": ["uvicorn", "--port={port}", "--ws=wsproto", APP],
    "daphne": ["daphne", "--port={port}", f"--bind={HOST}", APP],
    "hypercorn": ["hypercorn", f"--bind={HOST}:{{port}}", APP],
    "granian": ["granian", "--interface=asgi", "--port={port}", APP],
}


class Site:
    """A server that runs the application, and the layer of its sender."""

    def __init__(
        self, words: list[str], url: str, log: Path, kind: str = "core"
    ) -> None:
        self.port = free_port()
        self.url = url
        self._log = log
        command = [word.format(port=self.port) for word in words]
        paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "REDIS_URL": url,
            "LAYER": kind,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=environment,
                cwd=TESTS,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ready(self) -> None:
        """Returns when it listens."""

        def listens() -> bool:
            assert self.process.poll() is None, self.log()
            with socket.socket() as probe:
                return probe.connect_ex((HOST, self.port)) == 0

        until(listens, "the server", timeout=40)

    def log(self) -> str:
        """What it said so far."""
        return self._log.read_text(errors="replace")

    def end(self) -> None:
        """Asks it to end, and waits until all its processes have."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
