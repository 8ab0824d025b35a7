"""A few contenders in a few cases, now: `compare.py CASE[,CASE] CONTENDER...`

    python bench/compare.py senders-200-in-two core-unconfirmed channels_nats limit-core

Without contenders all of the case; without a case says which there are. Ratios are of
the first contender to each other one, in the same round; their median counts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from arena import Arena
from cases import CASES, Case
from contenders import CONTENDERS
from summary import Row, rows


def show(case: Case, found: list[Row]) -> None:
    """Prints a table."""
    print(f"\n{case.title} ({case.name}), {case.unit}")
    for row in found:
        print("  " + "  ".join(row.cells()), flush=True)


def main() -> None:
    """Prints a table for each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="?", default="")
    parser.add_argument("contenders", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    options = parser.parse_args()
    if not options.cases:
        for case in CASES.values():
            print(f"{case.name:24} {case.title}\n    {' '.join(case.contenders)}")
        return
    with Arena(loop=options.loop, seconds=options.seconds) as arena:
        for name in options.cases.split(","):
            case, here = CASES[name], []
            for contender in options.contenders or case.contenders:
                if reason := CONTENDERS[contender].missing():
                    print(f"without {contender}: {reason}")
                else:
                    here.append(contender)
            found = arena.rounds(case, here, options.rounds)
            figures = {k: [one.asdict() for one in v] for k, v in found.items()}
            show(case, rows(figures, here[0]))


if __name__ == "__main__":
    main()
