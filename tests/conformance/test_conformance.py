"""Both layers keep the specification, and each point can tell a layer that doesn't."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from conformance.faults import FAULTS
from conformance.known import DEVIATIONS, TOPOLOGIES, deviations, ours, start
from conformance.points import POINTS
from conformance.sound import SoundLayer
from conformance.steps import patience
from conformance.subjects import Outcome, Subject, hold, hold_all

# All points of a layer are held within the first test that asks for one.
pytestmark = pytest.mark.timeout(600)

Outcomes = dict[str, Outcome]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Our layers on each topology, or the one that `--layer` names."""
    if "subject" in metafunc.fixturenames:
        given = metafunc.config.getoption("layer")
        both = [(layer, topology) for layer in DEVIATIONS for topology in TOPOLOGIES]
        params = [given] if given else [_param(*each) for each in both]
        metafunc.parametrize(
            "subject", params, ids=[given] if given else None, indirect=True
        )


def _param(layer: str, topology: str) -> Any:
    marks = [] if topology == "one server" else [pytest.mark.slow]
    return pytest.param((layer, topology), id=f"{layer}, {topology}", marks=marks)


@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """The layer that is held to the points, with servers of its own."""
    with ExitStack() as servers:
        if isinstance(request.param, str):
            options = request.config.option
            yield Subject(request.param, request.param, options.config, options.local)
        else:
            layer, topology = request.param
            yield ours(layer, topology, start(servers, topology))


@pytest.fixture(scope="module")
def outcomes(subject: Subject) -> Outcomes:
    """What became of each point."""
    return hold_all(subject)


@pytest.mark.parametrize("name", POINTS)
def test_keeps(subject: Subject, outcomes: Outcomes, name: str) -> None:
    outcome, known = outcomes[name], deviations(subject)
    if name in known:
        assert outcome.word == "BROKEN", "it is kept, and known as broken"
        pytest.xfail(known[name])
    if outcome.word == "n.a.":
        pytest.skip(str(outcome.error))
    if outcome.error is not None:
        raise outcome.error


# The points themselves


async def test_can_be_kept() -> None:
    layer = Subject("sound", SoundLayer, is_local=True)
    outcomes = await hold(layer, list(POINTS.values()))
    assert {n: o.error for n, o in outcomes.items() if o.word != "kept"} == {}


@pytest.fixture(scope="module")
def noticed() -> Outcomes:
    """What became of each point that a faulty layer was held to, all at once."""

    async def hold_each() -> Outcomes:
        patience.set(0.5)
        found = await asyncio.gather(
            *(
                hold(Subject(name, FAULTS[name], is_local=True), [point])
                for name, point in POINTS.items()
            )
        )
        return {name: outcome for each in found for name, outcome in each.items()}

    return asyncio.run(hold_each())


@pytest.mark.parametrize("name", POINTS)
def test_can_be_broken(noticed: Outcomes, name: str) -> None:
    assert noticed[name].word == "BROKEN"
