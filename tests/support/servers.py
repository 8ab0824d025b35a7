"""Real Redis and Valkey servers that the tests start and stop."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support import programs
from support.certificates import Certificates
from support.polling import until

HOST = "127.0.0.1"
Option = str | int | Iterable[str]

DEFAULTS: Mapping[str, Option] = {
    "bind": f"{HOST} -::1",
    "save": '""',
    "appendonly": "no",
    "daemonize": "no",
    # Replicas shall not wait for others to come.
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": 0,
}


def kept(client: redis.Redis) -> list[bytes]:
    """The keys of a database, but for heartbeats, which come by the clock."""
    return sorted(key for key in client.scan_iter() if b":{processes" not in key)


def free_port() -> int:
    """A port nobody listens on, for which port + 10000 (a Cluster's bus) is free too.

    Below the range that outgoing connections are given their ports from: else a client
    that tries to reconnect to a stopped server may end up connected to itself.
    """
    while True:
        port = random.randrange(10_500, 22_500)
        with contextlib.suppress(OSError):
            for candidate in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((HOST, candidate))
            return port


class Server:
    """One server process on a loopback port of its own, in a directory of its own."""

    host = HOST

    def __init__(
        self,
        binary: str | None = None,
        *,
        password: str | None = None,
        users: Iterable[str] = (),
        unix: bool = False,
        tls: Certificates | None = None,
        client_certificates: bool = False,
        sentinel: bool = False,
        port: int | None = None,
        options: Mapping[str, Option] | None = None,
    ) -> None:
        self.binary = binary or programs.default()
        self.password = password
        self.tls = tls
        self.client_certificates = client_certificates
        self.sentinel = sentinel
        self.port = port or free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="crf-"))
        self.path = str(self.directory / "socket") if unix else None
        self.log = self.directory / "log"
        self.options = {"user": tuple(users), **(options or {})}
        self._fixed_port = port is not None
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: dict[tuple[tuple[str, Any], ...], redis.Redis] = {}

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = self._process.pid if self._process else "not running"
        return f"<Server {programs.version(self.binary)} :{self.port} ({state})>"

    # How to reach it

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def pids(self) -> set[int]:
        """The ids of its processes."""
        return {self.pid} if self.running else set()

    @property
    def running(self) -> bool:
        """Whether the process is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port

    @property
    def url(self) -> str:
        """The URI over TCP, or over TLS where the server speaks it."""
        scheme = "rediss" if self.tls else "redis"
        return f"{scheme}://{self._credentials}{self.host}:{self.port}"

    @property
    def unix_url(self) -> str:
        """The URI over the UNIX socket."""
        return f"unix://{self._credentials}{self.path}"

    @property
    def _credentials(self) -> str:
        return f":{quote(self.password, safe='')}@" if self.password else ""

    def client(self, **kwargs: Any) -> redis.Redis:
        """A blocking client for assertions, closed when the server stops."""
        key = tuple(sorted(kwargs.items()))
        if key not in self._clients:
            tls = self.tls.client_arguments() if self.tls else {}
            self._clients[key] = redis.Redis(
                **{
                    "host": self.host,
                    "port": self.port,
                    "password": self.password,
                    "protocol": 2,
                    "socket_timeout": 10,
                    "retry": Retry(NoBackoff(), 0),
                    **tls,
                    **kwargs,
                }
            )
        return self._clients[key]

    def clients(self) -> list[dict[str, str]]:
        """Who is connected, but for the client that asks."""
        me = self.client().client_id()
        return [one for one in self.client().client_list() if int(one["id"]) != me]

    def disconnect(self) -> None:
        """Close the connections of the clients, which open new ones when used again."""
        for client in self._clients.values():
            client.connection_pool.disconnect()

    def flush(self) -> None:
        """Remove all data and scripts, and close the clients' connections."""
        self.client().flushall()
        self.client().script_flush()
        self.disconnect()

    # Its life

    def start(self, *, empty: bool = True, wait: bool = True) -> Server:
        """Start the process and wait until it answers and has loaded its data."""
        if self.running:
            raise RuntimeError("the server is running already")
        if empty:
            self._forget_data()
        self._launch()
        if wait:
            try:
                self._await_answer()
            except BaseException:
                self.kill()
                raise
        return self

    def stop(self) -> None:
        """End the process and remove its directory; nothing in it is worth saving."""
        self.kill()
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """End the process at once, as `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.disconnect()

    def restart(self, *, empty: bool) -> None:
        """Kill it and start it again on the same port, without its data or with it."""
        if not empty:
            self.client().save()
        self.kill()
        self.start(empty=empty)

    def pause(self) -> None:
        """Stop the process (SIGSTOP): its connections stay, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("the server is not running")
        self._process.send_signal(number)

    def _launch(self) -> None:
        configuration = self.directory / "conf"
        configuration.write_text(self._configuration())
        arguments = [self.binary, str(configuration)]
        if self.sentinel:
            arguments.append("--sentinel")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                # A Ctrl-C is for the tests, which then stop their servers.
                start_new_session=True,
            )

    def _await_answer(self) -> None:
        for _ in range(20):
            if until(self._answers_or_ended, f"{self!r} to answer") == "answers":
                return
            log = self.log.read_text(errors="replace")
            if self._fixed_port or "ddress already in use" not in log:
                raise RuntimeError(f"the server did not start:\n{log[-2000:]}")
            # Somebody else was faster; the clients know the old port.
            self.kill()
            self._clients.clear()
            self.log.unlink()
            self.port = free_port()
            self._launch()
        raise RuntimeError("found no free port")

    def _answers_or_ended(self) -> str | None:
        assert self._process is not None
        if self._process.poll() is not None:
            return "ended"
        try:
            # Somebody else's server might answer on the port.
            answering = self.client().info("server")["process_id"]
        except (redis.ConnectionError, redis.TimeoutError):
            return None
        finally:
            self.disconnect()
        return "answers" if answering == self._process.pid else None

    def _forget_data(self) -> None:
        for left in self.directory.glob("dump.rdb"):
            left.unlink()
        for left in self.directory.glob("appendonly*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def _configuration(self) -> str:
        options: dict[str, Option] = {"port": self.port, "dir": str(self.directory)}
        if self.sentinel:
            options["bind"] = DEFAULTS["bind"]
        else:
            options |= DEFAULTS
        if not self.sentinel and int(programs.version(self.binary).split(".")[0]) > 6:
            options |= {"enable-debug-command": "yes"}
        if self.path:
            options |= {"unixsocket": self.path}
        if self.password:
            options |= {"requirepass": f'"{self.password}"'}
            if not self.sentinel:
                options |= {"masterauth": f'"{self.password}"'}
        if self.tls:
            options |= self._tls_options(self.tls)
        lines = []
        for name, value in (options | self.options).items():
            several = [value] if isinstance(value, str | int) else value
            lines += [f"{name} {one}" for one in several]
        return "\n".join(lines) + "\n"

    def _tls_options(self, tls: Certificates) -> dict[str, Option]:
        return {
            "port": 0,
            "tls-port": self.port,
            "tls-cert-file": tls.server.certificate,
            "tls-key-file": tls.server.key,
            "tls-ca-cert-file": tls.ca,
            "tls-auth-clients": "yes" if self.client_certificates else "no",
        }
