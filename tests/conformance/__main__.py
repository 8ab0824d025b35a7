"""The report: which layer keeps which point; by `make conformance`."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import warnings
from contextlib import ExitStack

from .known import TOPOLOGIES, deviations, everybody, start
from .points import LEFT_OUT, POINTS, SECTIONS
from .subjects import Outcome, Subject, hold_all

_WIDTH, _CELL = 34, 7

Outcomes = dict[str, Outcome]


def main() -> int:
    """Prints the report; 1 if a layer breaks a point that it isn't known to break.

    A layer given by its import path is known to break nothing.
    """
    parser = argparse.ArgumentParser("make conformance", description=__doc__)
    parser.add_argument("--layer", metavar="IMPORT.PATH", help="only this one")
    parser.add_argument("--config", default="{}", type=json.loads, help="as JSON")
    parser.add_argument(
        "--local", action="store_true", help="the layer lives in one process"
    )
    arguments = parser.parse_args()
    # Who is told to end, as by timeout(1), stops his servers first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings.simplefilter("ignore")
    logging.disable()
    with ExitStack() as servers:
        if arguments.layer:
            name, config = arguments.layer, arguments.config
            subjects = [Subject(name, name, config, is_local=arguments.local)]
        else:
            subjects = everybody({each: start(servers, each) for each in TOPOLOGIES})
        found = [_held(subject) for subject in subjects]
    print()
    _print_table(subjects, found)
    return int(any(map(_surprises, subjects, found)))


def _held(subject: Subject) -> Outcomes:
    print(f"{subject.name} ...", file=sys.stderr, flush=True)
    return hold_all(subject)


def _surprises(subject: Subject, outcomes: Outcomes) -> bool:
    broken = {name for name, outcome in outcomes.items() if outcome.word == "BROKEN"}
    return not subject.is_rival and not broken <= deviations(subject).keys()


def _print_table(subjects: list[Subject], found: list[Outcomes]) -> None:
    columns = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(subjects)]
    heads = "".join(f"{column:>{_CELL}}" for column in columns)
    section = ""
    for name, point in sorted(
        POINTS.items(), key=lambda p: SECTIONS.index(p[1].section)
    ):
        if point.section != section:
            section = point.section
            print(f"\n{section:{_WIDTH}}{heads}")
        cells = "".join(f"{outcomes[name].word:>{_CELL}}" for outcomes in found)
        print(f"  {name:{_WIDTH - 2}}{cells}")
        print(f'    {"must" if point.must else "should"}: "{point.sentence}"')
    print()
    for column, subject, outcomes in zip(columns, subjects, found, strict=True):
        _print_summary(column, subject, outcomes)
    print("\nNot checked:")
    for sentence, why in LEFT_OUT:
        print(f'  "{sentence}": {why}')


def _print_summary(column: str, subject: Subject, outcomes: Outcomes) -> None:
    words = [outcome.word for outcome in outcomes.values()]
    counts = [f"{words.count(word)} {word}" for word in ("kept", "BROKEN", "n.a.")]
    print(f"{column}  {subject.name}: {', '.join(counts)}")
    known = deviations(subject)
    for name, outcome in outcomes.items():
        if outcome.word != "kept":
            text = " ".join(str(outcome.error).split()) or type(outcome.error).__name__
            print(f"     {outcome.word} {name}: {known.get(name, text):.100}")


if __name__ == "__main__":
    sys.exit(main())
