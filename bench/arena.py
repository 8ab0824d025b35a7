"""Servers and workers, and contenders that take turns: a case measured in rounds."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import psutil

from cases import Case
from contenders import CONTENDERS, Setting
from support import programs
from support.polling import until
from support.servers import HOST, Server, free_port
from workloads import Outcome, Rest, tell_all

SCRIPT = Path(__file__).with_name("worker.py")
PATIENCE = 60.0  # seconds for one answer
WARMED = 3  # attempts to see every message of a small run arrive
ROOMY = 1_000_000  # messages: room for all
ENOUGH = 0.1  # seconds of a run from which a rate can be told
# By default a server gives up a subscriber that is behind by 32 MB, as one may be to
# whom 20 send 900 KiB.
ROOM = {"client-output-buffer-limit": "pubsub 256mb 64mb 60"}


class Failed(Exception):
    """A worker raised, or said nothing for too long."""


class Worker:
    """The near end of a worker process, which gets these words and descriptors."""

    def __init__(self, *words: str, script: Path = SCRIPT, fds: Sequence[int] = ()):
        self._pipe, far = Pipe()
        command = [sys.executable, str(script), str(far.fileno()), *words]
        # Incumbents say a lot.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command, pass_fds=[far.fileno(), *fds], stderr=self._log
        )
        far.close()

    def begin(self, contender: str, setting: Setting) -> None:
        """Opens a layer."""
        self._pipe.send((contender, setting))

    def end(self) -> None:
        """Closes the layer."""
        self._pipe.send(None)
        self.hear()

    def tell(self, method: str, *args: Any) -> None:
        """Asks for something; `hear` has the answer."""
        self._pipe.send((method, args))

    def hear(self) -> Any:
        """The next answer."""
        if not self._pipe.poll(PATIENCE):
            raise Failed(f"no answer within {PATIENCE:g} s")
        try:
            is_fine, result = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._log.seek(0)
            said = self._log.read().decode(errors="replace")
            raise Failed(f"the worker ended: {said[-500:]}") from None
        if not is_fine:
            raise Failed(result)
        return result

    def ask(self, method: str, *args: Any) -> Any:
        """Does something and returns its result."""
        self.tell(method, *args)
        return self.hear()

    def pause(self, seconds: float) -> None:
        """Lets the workers work."""
        time.sleep(seconds)

    def close(self, seconds: float = 10.0) -> None:
        """Ends the process, by force if it takes longer."""
        self._pipe.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


Crew = tuple[Worker, list[Worker]]  # the sender, and the receivers


class Nats:
    """A nats-server of its own."""

    def __init__(self) -> None:
        self.address = HOST, free_port()

    def __enter__(self) -> Nats:
        self._log = tempfile.TemporaryFile()
        host, port = self.address
        command = [programs.needs("nats-server"), "-a", host, "-p", str(port)]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        self.pid = self._process.pid
        try:
            until(self._answers, "nats-server to answer")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(self.address) as s:
            return s.recv(4) == b"INFO"
        return False


@dataclass
class Figures:
    """What was found in one round. CPU is in seconds per 10,000 deliveries."""

    rate: float = 0.0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    p50: float | None = None  # microseconds
    p99: float | None = None
    python: float | None = None
    server: float | None = None
    bytes: float | None = None
    share: float | None = None  # of a CPU
    failure: str | None = None

    def asdict(self) -> dict[str, Any]:
        """Without what wasn't measured."""
        return {k: v for k, v in asdict(self).items() if v is not None}


@dataclass
class Arena:
    """To be used in `with`: starts Redis at once, all else when it is needed."""

    loop: str = "asyncio"  # or "uvloop"
    seconds: float = 0.4  # of a measurement; 0: as short as can be
    _workers: list[Worker] = field(default_factory=list)
    _counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def __enter__(self) -> Arena:
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self.redis = stack.enter_context(Server(options=ROOM))
            self.nats: Nats | None = None
            stack.callback(self.dismiss)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def dismiss(self) -> None:
        """Ends the workers."""
        while self._workers:
            self._workers.pop().close()

    def rounds(
        self, case: Case, contenders: Sequence[str], number: int
    ) -> dict[str, list[Figures]]:
        """What each found in each round; another one begins each time."""
        found: dict[str, list[Figures]] = {name: [] for name in contenders}
        for turn in range(number):
            at = turn % len(contenders)
            for name in (*contenders[at:], *contenders[:at]):
                found[name].append(self.measure(case, name))
        return found

    def measure(self, case: Case, contender: str) -> Figures:
        """One contender once."""
        try:
            if isinstance(case.workload, Rest):
                self.dismiss()  # memory is that of fresh processes
                return self._rest(case, contender)
            return self._measure(case, contender)
        except (Failed, OSError) as failure:
            self.dismiss()
            return Figures(failure=str(failure).strip().splitlines()[-1])

    # Steps

    @contextlib.contextmanager
    def _staffed(self, case: Case, contender: str) -> Iterator[Crew]:
        """A sender and receivers with new layers on empty servers."""
        self.redis.flush()
        if CONTENDERS[contender].program and self.nats is None:
            self.nats = self._stack.enter_context(Nats())
        needed = case.receivers + (not case.is_one_process)
        while len(self._workers) < needed:
            self._workers.append(Worker(self.loop))
        workers = self._workers[:needed]
        address = self.nats.address if self.nats else None
        capacity = case.capacity or ROOMY
        setting = Setting(
            self.redis.address, address, capacity, case.size, case.encrypted
        )
        for worker in workers:
            worker.begin(contender, setting)
        yield workers[-1], workers[: case.receivers]
        for worker in workers:
            worker.end()

    def _measure(self, case: Case, contender: str) -> Figures:
        workload = case.workload
        with self._staffed(case, contender) as crew:
            workload.prepare(*crew)
            begin = self._warm(case, crew)
            if (case.name, contender) not in self._counts:
                begin = self._weigh(case, contender, crew, begin)
            count = self._counts[case.name, contender]
            workers = list(dict.fromkeys((crew[0], *crew[1])))
            before = self._cpu(contender, workers)
            outcome = workload.run(*crew, range(begin, begin + count))
            after = self._cpu(contender, workers)
        return _figures(outcome, before, after)

    def _weigh(self, case: Case, contender: str, crew: Crew, begin: int) -> int:
        """Finds how many messages take as long as wanted; the next number."""
        workload, count = case.workload, case.workload.least
        while self.seconds:
            outcome = workload.run(*crew, range(begin, begin + count))
            begin += count
            if outcome.seconds >= ENOUGH or not outcome.tally.is_clean:
                rate = outcome.rate / workload.copies
                count = max(workload.least, int(rate * self.seconds))
                break
            count *= 4
        self._counts[case.name, contender] = count
        return begin

    def _warm(self, case: Case, crew: Crew) -> int:
        """Opens connections and sees that everything arrives; the next number."""
        least = case.workload.least
        for attempt in range(1, WARMED + 1):
            numbers = range((attempt - 1) * least, attempt * least)
            if not case.workload.run(*crew, numbers).tally.lost:
                break
        return attempt * least

    def _cpu(self, contender: str, workers: Sequence[Worker]) -> tuple[float, float]:
        """The CPU (seconds) that Python and the server took so far."""
        server = self.nats if CONTENDERS[contender].program else self.redis
        assert server is not None
        times = psutil.Process(server.pid).cpu_times()
        return sum(tell_all(workers, "cpu")), times.user + times.system

    def _rest(self, case: Case, contender: str) -> Figures:
        with self._staffed(case, contender) as (worker, _):
            workload = case.workload
            size, share = worker.ask("rest", workload.members, workload.seconds)
        return Figures(bytes=size, share=share)


def _figures(
    outcome: Outcome, before: tuple[float, float], after: tuple[float, float]
) -> Figures:
    found = outcome.tally
    figures = Figures(outcome.rate, found.lost, found.doubled, found.disordered)
    if deliveries := outcome.deliveries or found.received:
        unit = 10_000 / deliveries
        figures.python = (after[0] - before[0]) * unit
        figures.server = (after[1] - before[1]) * unit
    if outcome.latencies:
        figures.p50, figures.p99 = outcome.percentile(50), outcome.percentile(99)
    return figures
