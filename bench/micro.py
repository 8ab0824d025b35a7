"""The micro-benchmarks as one table: `micro.py [--passes N] [option of pytest ...]`.

Runs the benchmarks several times over, so that what is compared is measured in turns:
times are those of the fastest pass, ratios the median of all passes. The time of one
call includes the loop around it, 20 to 30 ns.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

HERE = Path(__file__).parent
FILES = [HERE / "test_micro_tables.py", HERE / "test_micro_messages.py"]
INCUMBENTS = ("channels", "channels_redis", "incumbent")


class Row(NamedTuple):
    """A function, the test that measures it, and its budget."""

    function: str
    test: str
    calls: int = 1000  # in what the test measures
    limit: float | None = None  # µs a call
    over_reference: float = 1  # times as fast
    over_incumbent: float | None = None
    kind: str = ""  # in front of the names of what is compared
    rival: tuple[str, str] = ("", "")  # test and name, where not in the same test


ROWS = (
    Row("non_local_name", "test_non_local_name", limit=0.15, over_reference=3),
    Row("check_group", "test_check_group", limit=0.15, over_reference=3),
    Row("split_local", "test_split_local", over_reference=3),
    Row("shard_of", "test_shard_of", limit=0.1),
    Row("lookup", "test_lookup", limit=0.15, over_reference=3),
    Row("lookup, no rules", "test_lookup_without_rules", limit=0.15, over_reference=3),
    Row("lookup, memo", "test_lookup_by_regex", limit=0.15, over_reference=3),
    Row("lookup, memo full", "test_lookup_of_many_by_regex", 2000, over_reference=3),
    Row("bundle, a member", "test_bundle", over_reference=3),
    Row("pack + splice", "test_pack", limit=0.6),
    Row("splice", "test_splice", limit=0.6, over_reference=3),
    Row("unpack", "test_unpack"),
    Row("pack + splice_list", "test_pack_list", 10),
    Row("unpack, 1,000 names", "test_unpack_list", 10),
    Row("UniqueBytes.next", "test_unique"),
    Row("FernetFrames.seal", "test_seal", over_incumbent=1.3, kind="fernet_"),
    Row("FernetFrames.open", "test_open_fernet", over_incumbent=1.5, kind="fernet_"),
    Row(
        *("AesGcmFrames.seal", "test_seal", 1000, 1.6),
        over_incumbent=6,
        kind="gcm_",
        rival=("test_seal", "fernet_incumbent"),
    ),
    Row(
        *("AesGcmFrames.open", "test_open_gcm", 1000, 1.6),
        over_incumbent=6,
        kind="gcm_",
        rival=("test_open_fernet", "fernet_incumbent"),
    ),
)

# By test, what is measured, and payload: seconds, by pass.
Times = dict[tuple[str, str, str], list[float]]


def measure(passes: int, options: list[str]) -> Times:
    times: Times = defaultdict(list)
    pytest = Path(sysconfig.get_path("scripts"), "pytest")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [pytest, "-q", *FILES, f"--benchmark-json={report}", *options]
        for number in range(passes):
            print(f"pass {number + 1} of {passes}", file=sys.stderr)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stdout + done.stderr)
            for found in json.loads(report.read_text())["benchmarks"]:
                times[identity(found["name"])].append(found["stats"]["min"])
    return times


def identity(name: str) -> tuple[str, str, str]:
    """Test, what is measured, and payload of "test[one-other]", in any order."""
    test, _, rest = name.removesuffix("]").partition("[")
    parts = rest.split("-")
    measured = next(
        p for p in parts if re.search("compiled|reference|incu|chan|floor", p)
    )
    return test, measured, "".join(part for part in parts if part != measured)


def lines(times: Times) -> Iterator[list[str]]:
    for row in ROWS:
        for test, measured, payload in list(times):
            if test == row.test and measured == f"{row.kind}compiled":
                yield line(row, payload, times)


def line(row: Row, payload: str, times: Times) -> list[str]:
    own = times[row.test, f"{row.kind}compiled", payload]
    reference = times.get((row.test, f"{row.kind}reference", payload), [])
    rivals = (
        [row.rival]
        if row.rival[0]
        else [(row.test, row.kind + name) for name in INCUMBENTS]
    )
    keys = [(*rival, payload) for rival in rivals]
    found = [times[key] for key in keys if key in times]
    incumbent = found[0] if found else []
    microseconds = min(own) / row.calls * 1e6
    budget = []
    if row.limit:
        budget.append(verdict(microseconds <= row.limit, f"<= {row.limit} µs"))
    ahead = ratio(reference, own)
    budget.append(
        verdict(ahead >= row.over_reference, f"{row.over_reference:g} x reference")
    )
    if row.over_incumbent:
        faster = ratio(incumbent, own) >= row.over_incumbent
        budget.append(verdict(faster, f"{row.over_incumbent:g} x incumbent"))
    cells = [row.function, payload, f"{microseconds:.3f}"]
    floor = times.get((row.test, "floor", payload))
    cells.append(f"{min(floor) / row.calls * 1e6:.3f}" if floor else "")
    for other in (reference, incumbent):
        cells.append(f"{min(other) / row.calls * 1e6:.3f}" if other else "")
        cells.append(f"{ratio(other, own):.1f}" if other else "")
    return [*cells, ", ".join(budget)]


def ratio(others: list[float], own: list[float]) -> float:
    """How many times as fast: the median over the passes."""
    return median([other / mine for other, mine in zip(others, own, strict=True)])


def verdict(kept: bool, what: str) -> str:
    return f"{'✓' if kept else '✗ MISSED'} {what}"


def main() -> None:
    options, passes = sys.argv[1:], 5
    if options[:1] == ["--passes"]:
        passes, options = int(options[1]), options[2:]
    head = [
        "function",
        "payload",
        "compiled",
        "floor",
        "reference",
        "x",
        "incumbent",
        "x",
        "budget",
    ]
    table = [head, *lines(measure(passes, options))]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        cells = [
            cell.ljust(width) if column in (0, 1, 8) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    print("\nµs a call; x: how many times as long the reference or the incumbent takes")
    print(
        "floor: a call of nothing, msgpack's own packing, the regex: what can't be less"
    )


if __name__ == "__main__":
    main()
