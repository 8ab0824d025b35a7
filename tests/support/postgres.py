"""A PostgreSQL for one test, to restart."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from support import programs
from support.servers import HOST, free_port

USER = "postgres"


class Postgres:
    """A server of its own, on a free port of loopback, with an empty database."""

    def __init__(self) -> None:
        self.port = free_port()
        self._programs = Path(programs.needs("postgresql")).parent
        self._folder = Path(tempfile.mkdtemp())
        # It refuses to run as root: Debian's package has a user for it.
        self._user: dict[str, Any] = {"user": USER} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(self._folder, USER)
        self._run("initdb", "--auth=trust", f"--username={USER}", "--no-sync")

    def __enter__(self) -> Postgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    @property
    def settings(self) -> dict[str, Any]:
        """Of Django's connections to it."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": USER,
            "HOST": HOST,
            "PORT": self.port,
        }

    def start(self) -> None:
        """Returns when it answers."""
        options = f"-p {self.port} -c listen_addresses={HOST} -c fsync=off"
        options += " -c unix_socket_directories="
        self._run("pg_ctl", "start", "-w", "-l", os.devnull, "-o", options)

    def stop(self) -> None:
        """At once: its clients are cut off."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-w")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), "-D", str(self._folder), *arguments],
            cwd="/",
            check=True,
            timeout=60,
            # No pipe: the server would keep it open.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._user,
        )
