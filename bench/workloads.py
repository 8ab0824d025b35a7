"""What is measured: who sends what to whom, as the process that directs it sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from station import IDLE
from tally import Tally, percentile, shared

LOOK = 0.1  # seconds between looks how much the readers of one channel have
SETTLE = 0.5  # seconds without a message after which no copy comes any more
GROUP = "group"


class Worker(Protocol):
    """A process with a `Station`; `ask` is `tell`, then `hear`."""

    def ask(self, method: str, *args: Any) -> Any: ...
    def tell(self, method: str, *args: Any) -> None: ...
    def hear(self) -> Any: ...
    def pause(self, seconds: float) -> None: ...


@dataclass
class Outcome:
    """What one run found."""

    seconds: float
    tally: Tally
    latencies: Sequence[float] = ()  # seconds
    deliveries: int = 0  # where they are more than the tally's

    @property
    def rate(self) -> float:
        """Deliveries (round trips) per second."""
        return self.tally.received / self.seconds

    def percentile(self, percent: float) -> float:
        """Of the latencies, in microseconds."""
        return percentile(self.latencies, percent) * 1e6


class Workload(Protocol):
    """Something to send, as often as wanted. `least` messages show that all is set up;
    one message becomes `copies` deliveries."""

    least: int
    copies: int

    def prepare(self, sender: Worker, receivers: list[Worker]) -> None:
        """Makes channels and receivers."""

    def run(self, sender: Worker, receivers: list[Worker], numbers: range) -> Outcome:
        """Sends these messages and sees how they arrive."""


def tell_all(workers: Sequence[Worker], method: str, *args: Any) -> list[Any]:
    """The results of all, who work at the same time."""
    for worker in workers:
        worker.tell(method, *args)
    return [worker.hear() for worker in workers]


def gathered(began: float, arrivals: Sequence[Any]) -> Outcome:
    """From the first message to the last arrival anywhere."""
    found = sum((one.tally for one in arrivals), Tally())
    return Outcome(max(one.last for one in arrivals) - began, found)


@dataclass
class Senders:
    """Some senders to one receiver."""

    senders: int
    least: int = 100
    copies: int = 1
    method = "send"

    def prepare(self, sender: Worker, receivers: list[Worker]) -> None:
        [self._name] = receivers[0].ask("listen", 1)

    def run(self, sender: Worker, receivers: list[Worker], numbers: range) -> Outcome:
        receivers[0].ask("expect", len(numbers))
        began = sender.ask(self.method, self._name, numbers, self.senders)
        arrivals = receivers[0].ask("collect", numbers, self.senders)
        return gathered(began, [arrivals])


class GroupSenders(Senders):
    """Some senders to a group with one member."""

    method = "send_group"

    def prepare(self, sender: Worker, receivers: list[Worker]) -> None:
        receivers[0].ask("listen", 1, GROUP)
        self._name = GROUP


@dataclass
class Joins:
    """A channel joins groups and leaves them: how long the joining takes."""

    least: int = 20
    copies: int = 1

    def prepare(self, sender: Worker, receivers: list[Worker]) -> None:
        """Nothing: it needs no receivers."""

    def run(self, sender: Worker, receivers: list[Worker], numbers: range) -> Outcome:
        seconds, taken = sender.ask("join", numbers)
        return Outcome(seconds, Tally(received=len(numbers)), taken)


class HalfLoad(Senders):
    """The same at half of the rate that it reached: how long each message takes."""

    def run(self, sender: Worker, receivers: list[Worker], numbers: range) -> Outcome:
        full = super().run(sender, receivers, numbers)
        receivers[0].ask("expect", len(numbers), True)
        rate = full.rate / 2
        stamps = sender.ask("send_paced", self._name, numbers, self.senders, rate)
        found = receivers[0].ask("collect", numbers, self.senders)
        arrivals = receivers[0].ask("logs")
        came = [number for log in arrivals.logs for number in log]
        latencies = [
            time - stamps[number - numbers.start]
            for number, time in zip(came, arrivals.times, strict=True)
            if number in numbers
        ]
        deliveries = full.tally.received + found.tally.received
        wrong = replace(full.tally, received=0)
        seconds = found.last - min(stamps)
        return Outcome(seconds, found.tally + wrong, latencies, deliveries)


@dataclass
class Group:
    """One sender to a group whose members are spread over the receivers."""

    members: int
    least: int = 2

    def __post_init__(self) -> None:
        self.copies = self.members

    def prepare(self, sender: Worker, receivers: list[Worker]) -> None:
        tell_all(receivers, "listen", self.members // len(receivers), GROUP)

    def send(self, sender: Worker, numbers: range) -> float:
        """Sends these, and says when it began."""
        began: float = sender.ask("send_group", GROUP, numbers)
        return began

    def run(self, sender: Worker, receivers: list[Worker], numbers: range) -> Outcome:
        each = self.members // len(receivers)
        tell_all(receivers, "expect", len(numbers) * each)
        began = self.send(sender, numbers)
        return gathered(began, tell_all(receivers, "collect", numbers))


class Calls(Group):
    """The same from synchronous code."""

    def send(self, sender: Worker, numbers: range) -> float:
        began: float = sender.ask("call_group", GROUP, numbers)
        return began


@dataclass
class Readers:
    """Some senders to a normal channel, which all receivers read."""

    senders: int = 20
    least: int = 200
    copies: int = 1

    def prepare(self, sender: Worker, receivers: list[Worker]) -> None:
        tell_all(receivers, "read", "queue")

    def run(self, sender: Worker, receivers: list[Worker], numbers: range) -> Outcome:
        tell_all(receivers, "expect", 0, True)
        began = sender.ask("send", "queue", numbers, self.senders)
        came, still = 0, 0.0
        while still < (SETTLE if came >= len(numbers) else IDLE):
            sender.pause(LOOK)
            now = sum(tell_all(receivers, "progress"))
            came, still = now, (still + LOOK if now == came else 0.0)
        arrivals = tell_all(receivers, "logs")
        logs = [log for one in arrivals for log in one.logs]
        outcome = gathered(began, arrivals)
        outcome.tally = shared(logs, numbers, self.senders)
        return outcome


@dataclass
class PingPong:
    """A message there and back, then the next."""

    least: int = 20
    copies: int = 1

    def prepare(self, sender: Worker, receivers: list[Worker]) -> None:
        self._pong = sender.ask("open")
        self._ping = receivers[0].ask("open")
        receivers[0].ask("answer", self._ping, self._pong)

    def run(self, sender: Worker, receivers: list[Worker], numbers: range) -> Outcome:
        began, ended, found, taken = sender.ask("ping", self._ping, self._pong, numbers)
        return Outcome(ended - began, found, taken, 2 * found.received)


@dataclass(frozen=True)
class Rest:
    """Receivers that wait, and nobody sends."""

    members: int
    seconds: float
