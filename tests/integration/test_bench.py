"""The benchmarks: what goes wrong is noticed, and every workload still runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

import station
import workloads
from arena import Arena
from cases import CASES, Case
from contenders import CONTENDERS, TEXT
from queues import Queues
from report import condensed, report
from station import Station
from tally import Tally, percentile, shared, tally
from targets import TARGETS, NeverBehind
from workloads import Group, Rest

# Tally


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ([0, 1, 2, 3, 4, 5], Tally(6)),
        ([1, 0, 3, 2, 5, 4], Tally(6)),  # two senders, each in order
        ([0, 1, 3, 4, 5], Tally(5, lost=1)),
        ([0, 1, 1, 2, 3, 4, 5], Tally(6, doubled=1)),
        ([0, 1, 4, 3, 2, 5], Tally(6, disordered=1)),
        ([0, 1, 2, 3, 4, 5, 99], Tally(6, doubled=1)),  # of another run
        ([], Tally(0, lost=6)),
    ],
)
def test_tally(numbers: list[int], found: Tally) -> None:
    assert tally(numbers, range(6), senders=2) == found


def test_tally_of_readers_that_share() -> None:
    assert shared([[0, 2], [1, 3]], range(4)) == Tally(4)
    assert shared([[0, 2], [1, 0]], range(4)) == Tally(3, 1, 1, 1)


def test_percentile() -> None:
    assert percentile(range(100), 50) == 50
    assert percentile([3, 1, 2], 99) == 3


# A layer that breaks its promises


class Faulty(Queues):
    """Loses, doubles or holds back the message that ends in 7."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault
        self._held: list[Any] = []

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        if message["n"] % 10 == 7:
            if self._fault == "held":
                self._held.append(message)
            if self._fault != "doubled":
                return
            await super().send(channel, message)
        await super().send(channel, message)
        if message["n"] % 10 == 9 and self._held:
            await super().send(channel, self._held.pop())


@asynccontextmanager
async def manned(layer: Any) -> AsyncIterator[Station]:
    """A station in this process."""
    opened = Station(layer, len(TEXT))
    try:
        yield opened
    finally:
        await opened.close()


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("lost", Tally(18, lost=2)),
        ("doubled", Tally(20, doubled=2)),
        ("held", Tally(20, disordered=2)),
    ],
)
async def test_faults_are_noticed(
    fault: str, found: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(station, "IDLE", 0.1)
    async with manned(Faulty(fault)) as opened:
        [channel] = await opened.listen(1)
        await opened.expect(20)
        began = await opened.send(channel, range(20), 1)
        arrivals = await opened.collect(range(20))
        assert arrivals.tally == found
        assert arrivals.last > began  # though all had come before it was asked


async def test_a_receiver_that_ended_is_noticed() -> None:
    async with manned(Queues()) as opened:
        [channel] = await opened.listen(1)
        await opened.layer.send(channel, {"no": "number"})
        await asyncio.wait(opened._tasks)
        with pytest.raises(KeyError):
            await opened.expect(1)


# Workloads


IN_ONE = (
    *("ping-pong-in-one", "senders-20-in-one", "senders-20-default-in-one"),
    *("group-100-in-one", "joins", "idle"),
)
SEPARATE = (
    *("ping-pong-in-two", "senders-20-in-two", "group-1000-in-four", "readers-4"),
    *("half-load", "sync", "size-64-in-two", "encrypted-20-in-two"),
    "group-senders-20",
)


def tiny(case: Case) -> Case:
    """The same with few members and processes, and at rest for a moment."""
    workload = case.workload
    if isinstance(workload, Rest):
        workload = Rest(members=10, seconds=0.01)
    elif isinstance(workload, Group):
        workload = replace(workload, members=min(workload.members, 100))
    return replace(case, workload=workload, receivers=min(case.receivers, 2))


@pytest.mark.parametrize("cases", [IN_ONE, SEPARATE], ids=["in one", "separate"])
@pytest.mark.slow
def test_workloads(cases: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """With our layers and the limits, which are the bench's own."""
    monkeypatch.setattr(workloads, "SETTLE", 0.1)
    with Arena(seconds=0) as arena:
        for case in cases:
            chosen = [name for name in CASES[case].contenders if is_here(name)]
            found = arena.rounds(tiny(CASES[case]), chosen, 1)
            assert found
            for name, [figures] in found.items():
                wrong = figures.lost, figures.doubled, figures.disordered
                assert figures.failure is None, (case, name)
                assert wrong == (0, 0, 0), (case, name)
                assert figures.rate > 0 or figures.bytes is not None, (case, name)


def is_here(name: str) -> bool:
    """Whether a contender is ours or a limit, and there."""
    contender = CONTENDERS[name]
    return (contender.is_ours or contender.is_limit) and contender.missing() is None


@pytest.mark.slow
def test_what_a_worker_raises_is_told() -> None:
    case = replace(CASES["readers-4"], receivers=1)
    with Arena(seconds=0) as arena:
        figures = arena.measure(case, "limit-pubsub")  # which has no normal channels
        assert figures.failure == "KeyError: 'queue'"
        assert arena.measure(case, "core").failure is None


# Report


def test_report() -> None:
    fast, slow = {"rate": 1000.0, "lost": 0}, {"rate": 10.0, "lost": 3}
    case = "senders-20-in-one"
    rounds = {"core": [fast, fast], "channels_redis-core": [slow, slow]}
    data = {
        "machine_info": {
            "python_version": "3.11",
            "machine": "x86_64",
            "cpu": {},
            "layers": {
                **{"packages": {"redis": "8"}, "servers": {}, "cpus": 2},
                **{"system": "Linux", "load": [0.0], "loop": "asyncio"},
                **{"rounds": 2, "seconds": 1.0},
            },
        },
        "datetime": "2026-01-02T03:04:05",
        "commit_info": {"id": "0123456789"},
        "benchmarks": [
            {"extra_info": {"case": case, "contender": name, "rounds": each}}
            for name, each in rounds.items()
        ],
    }
    text = "\n".join(report(condensed(data)))
    assert "100.00 (100.00 to 100.00) | reached" in text
    least = "every row, the least is senders-20-in-one: core to channels_redis-core"
    assert f"| {least} | at least 1 | 100.00" in text
    assert "6 lost" in text
    assert "not measured" in text


def test_targets_are_of_cases_that_are_measured() -> None:
    for target in TARGETS:
        if isinstance(target, NeverBehind):
            continue  # of all
        names = CASES[target.case].contenders
        assert {target.ours, getattr(target, "other", target.ours)} <= set(names)
