"""Every case with each of its contenders, as benchmarks of seconds per delivery.

A case is measured when the first of its tests runs: all contenders that were chosen
(-k), in turns. Each test then hands what was found to pytest-benchmark, by a clock that
goes on as the measurement did. No figure makes a test fail: only a message of this
package that was lost (where none may), doubled or out of order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from arena import Arena, Figures
from cases import CASES
from contenders import CONTENDERS

pytestmark = pytest.mark.timeout(1800)

PAIRS = [(case.name, name) for case in CASES.values() for name in case.contenders]


class Replay:
    """A clock that goes on when it is told to."""

    __name__ = "replay"

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Goes on."""
        self._now += seconds


REPLAY = Replay()


class Results:
    """What was found so far, by case and contender."""

    def __init__(
        self, arena: Arena, chosen: list[tuple[str, str]], rounds: int
    ) -> None:
        self._arena = arena
        self._chosen = chosen
        self._rounds = rounds
        self._found: dict[str, dict[str, list[Figures]]] = {}

    def of(self, case: str, contender: str) -> list[Figures]:
        """The figures of each round."""
        if case not in self._found:
            here = [name for at, name in self._chosen if at == case]
            there = [name for name in here if CONTENDERS[name].missing() is None]
            self._found[case] = self._arena.rounds(CASES[case], there, self._rounds)
        return self._found[case][contender]


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> Iterator[Results]:
    """Measures what was chosen."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    params = [call.params for call in calls if call is not None]
    chosen = [(p["case"], p["contender"]) for p in params if "contender" in p]
    option = request.config.getoption
    with Arena(loop=option("loop"), seconds=option("seconds")) as arena:
        yield Results(arena, chosen, option("rounds"))


@pytest.mark.benchmark(timer=REPLAY)
@pytest.mark.parametrize(("case", "contender"), PAIRS)
def test_layers(benchmark: Any, results: Results, case: str, contender: str) -> None:
    if reason := CONTENDERS[contender].missing():
        pytest.skip(reason)
    found = results.of(case, contender)
    benchmark.group = case
    benchmark.extra_info |= {
        "case": case,
        "contender": contender,
        "rounds": [figures.asdict() for figures in found],
    }
    seconds = iter([1 / one.rate if one.rate > 0 else 0.0 for one in found])
    benchmark.pedantic(lambda: REPLAY.advance(next(seconds)), rounds=len(found))
    if CONTENDERS[contender].is_ours:
        for one in found:
            assert one.failure is None
            assert (one.doubled, one.disordered) == (0, 0)
            assert not one.lost or contender in CASES[case].may_lose
