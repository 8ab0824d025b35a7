"""What a message to browsers costs: real servers, real sockets, every frame counted.

    measure.py [FOUND.json] [--rounds 3] [--seconds 3] [--only TEXT ...] [--quick]

One server process has the clients, another process is all clients, a third one sends.
Contenders take turns within a row. `browsers.py` draws what is found.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).parents[1]))
sys.path.insert(2, str(Path(__file__).parents[2] / "tests"))

from rows import ROWS, TARGETS, Row
from serving import Site

from arena import Failed, Worker
from built import LOAD, is_compiled, is_traced
from summary import ratio
from support import programs
from support.servers import HOST, Server
from tally import percentile

HERE = Path(__file__).parent
FOUND = HERE.parents[1] / "build" / "end_to_end.json"
WARM = 3  # messages for each group, before anything is measured
LEAST = 10  # messages in a run
QUICK = 50  # clients at most
PACKAGES = (
    *("Django", "channels", "channels_redis", "redis", "hiredis"),
    *("uvicorn", "websockets", "daphne", "granian"),
)

Figures = dict[str, Any]


class Bench:
    """The processes but for the servers, to be used in `with`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> Bench:
        with contextlib.ExitStack() as stack:
            self._redis = stack.enter_context(Server())
            read, write = os.pipe()
            self.clients = Worker(str(write), script=HERE / "clients.py", fds=[write])
            stack.callback(self.clients.close)
            self.sender = Worker(str(read), script=HERE / "sender.py", fds=[read])
            stack.callback(self.sender.close)
            os.close(read)
            os.close(write)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, row: Row, contender: str) -> Figures:
        """One contender once; what failed says so."""
        layer, kind = contender.split()
        self._redis.flush()
        try:
            with self._site(row, layer) as site:
                return getattr(self, f"_{row.measures}")(row, site, layer, kind)
        except (Failed, OSError) as failure:
            return {"failure": str(failure).strip().splitlines()[-1][:200]}

    @contextlib.contextmanager
    def _site(self, row: Row, layer: str) -> Iterator[Site]:
        with Site(row.server, layer, self._redis.address) as site:
            try:
                yield site
            finally:
                self.clients.ask("leave")

    def _connect(self, row: Row, site: Site, kind: str) -> None:
        self.clients.ask("connect", HOST, site.port, kind, row.clients, row.groups)

    def _deliveries(self, row: Row, site: Site, layer: str, kind: str) -> Figures:
        self._connect(row, site, kind)
        self.sender.ask("open", layer, self._redis.address, row.size)
        try:
            first = self._flood(row, site, 0, 0.0, WARM * row.groups)[1]
            full, first = self._flood(row, site, first, self._seconds, LEAST)
            half = self._half(row, site, first, full["rate"] / 2)
        finally:
            self.sender.ask("close")
        for key in ("lost", "wrong", "closed"):
            full[key] += half.pop(key)
        return full | half

    def _flood(
        self, row: Row, site: Site, first: int, seconds: float, least: int
    ) -> tuple[Figures, int]:
        """As many as arrive; and the number of the next one."""
        # Less than a mailbox may hold, or all those of a process.
        window = 20 if row.groups == 1 else 50
        self.clients.ask("expect", first)
        cpu = site.cpu()
        orders = (first, row.groups, window, seconds, least)
        count, began = self.sender.ask("flood", *orders)
        came = self.clients.ask("collect", count)
        cpu = site.cpu() - cpu
        received = max(1, came["received"])
        figures = {
            "rate": came["received"] / (came["last"] - began),
            "cpu": cpu / received * 1e6,
            **{key: came[key] for key in ("lost", "wrong", "closed")},
        }
        return figures, first + count

    def _half(self, row: Row, site: Site, first: int, deliveries: float) -> Figures:
        """At a fixed rate: how long until the last member has a message."""
        rate = max(0.5, deliveries * row.groups / row.clients)
        count = max(LEAST, int(rate * self._seconds))
        self.clients.ask("expect", first)
        cpu = site.cpu()
        stamps = self.sender.ask("pace", first, row.groups, count, rate)
        came = self.clients.ask("collect", count)
        cpu = site.cpu() - cpu
        taken = [
            (end - begin) * 1e3
            for begin, end in zip(stamps, came["times"], strict=False)
            if end
        ]
        return {
            "half_cpu": cpu / max(1, came["received"]) * 1e6,
            "p50": percentile(taken, 50),
            "p99": percentile(taken, 99),
            **{key: came[key] for key in ("lost", "wrong", "closed")},
        }

    def _answers(self, row: Row, site: Site, layer: str, kind: str) -> Figures:
        """What clients say and are answered, per second."""
        self._connect(row, site, kind)
        self.clients.ask("talk", min(0.5, self._seconds))
        cpu = site.cpu()
        rate = self.clients.ask("talk", self._seconds)
        return {"answers": rate, "cpu": (site.cpu() - cpu) / rate / self._seconds * 1e6}

    def _memory(self, row: Row, site: Site, layer: str, kind: str) -> Figures:
        """Bytes for each connection that waits."""
        warm = replace(row, clients=20)
        self._connect(warm, site, kind)
        time.sleep(0.5)
        before = site.memory()
        self._connect(row, site, kind)
        time.sleep(1)
        return {"memory": (site.memory() - before) / row.clients}


def cpu_name() -> str:
    """As Linux tells it, or the architecture."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def machine(arguments: argparse.Namespace) -> Figures:
    """What the report says of it."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit,
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "load": LOAD,
        "packages": {name: programs.package_version(name) for name in PACKAGES},
        "servers": {"valkey-server": programs.version(programs.valkey())},
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }


def chosen(only: list[str], quick: bool) -> Iterator[Row]:
    """The rows, and of them the contenders, whose names have one of these texts."""
    for row in ROWS:
        if quick:
            clients = min(QUICK, row.clients)
            row = replace(row, clients=clients, groups=min(row.groups, clients // 10))
        names = [
            name
            for name in row.contenders
            if not only or any(text in f"{row.name} {name}" for text in only)
        ]
        if names:
            yield replace(row, contenders=tuple(names))


def run(arguments: argparse.Namespace) -> dict[str, dict[str, list[Figures]]]:
    """All figures, by row and contender."""
    found: dict[str, dict[str, list[Figures]]] = {}
    with Bench(arguments.seconds) as bench:
        for row in chosen(arguments.only, arguments.quick):
            cases = found[row.name] = {name: [] for name in row.contenders}
            for turn in range(arguments.rounds):
                at = turn % len(row.contenders)
                for name in (*row.contenders[at:], *row.contenders[:at]):
                    cases[name].append(bench.measure(row, name))
                    text = shown(cases[name][-1])
                    print(f"{row.name:16} {name:28} {text}", flush=True)
    return found


def shown(figures: Figures) -> str:
    """One run in a line."""
    return ", ".join(
        f"{key} {value:,.1f}" if isinstance(value, float) else f"{key} {value}"
        for key, value in figures.items()
    )


def judged(found: dict[str, dict[str, list[Figures]]]) -> Iterator[list[str]]:
    """The targets whose rows were measured: what, the most, found, whether reached."""
    for target in TARGETS:
        row = found.get(target.row, {})
        times = ratio(row.get(target.ours, ()), row.get(target.other, ()), target.key)
        if times is not None:
            yield [
                f"{target.row} ({target.key}): {target.ours} to {target.other}",
                f"{target.most:.3f}",
                f"{times.value:.3f} ({times.low:.3f} to {times.high:.3f})",
                "reached" if times.value <= target.most else "**missed**",
            ]


def main() -> None:
    """Measures, and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("found", nargs="?", type=Path, default=FOUND)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a measurement")
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT")
    text = f"one short round with {QUICK} clients: whether all works, no figures"
    parser.add_argument("--quick", action="store_true", help=text)
    arguments = parser.parse_args()
    if not is_compiled() or is_traced():
        parser.error("the compiled modules aren't as they are released")
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 0.3
    data = {**machine(arguments), "rows": run(arguments)}
    arguments.found.parent.mkdir(parents=True, exist_ok=True)
    arguments.found.write_text(json.dumps(data))
    for verdict in judged(data["rows"]):
        print(*verdict, sep="  ")


if __name__ == "__main__":
    main()
