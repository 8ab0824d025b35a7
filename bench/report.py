"""What `make bench` found, as tables and plots: `report.py [FOUND.json] [FOLDER]`.

FOUND is pytest-benchmark's JSON, or the shorter one that this writes beside the report.
Ratios are of rounds in which the layers took turns; medians, with their range.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cases import CASES
from contenders import CONTENDERS
from headline import RESULTS, filled, update
from summary import Middle, Rounds, middle, ratio
from targets import TARGETS, Found, losses

SHORT = RESULTS / "layers.json"
NOT_SHOWN = """\
Not shown: several machines or a network; a server that is busy with other things;
TLS, Sentinel, shards and Clusters. Servers, senders and receivers share the cores of
one machine, so what one of them saves is a gain for all. A sender of channels_nats
waits for no answer, nor does an `-unconfirmed` or `-both` one of this package
(`confirm_sends=False`; and `prefetch=100`); all others are told that Redis has the
message. Neither the limits (bare clients that send the same commands) nor `limit-queue`
do what a layer does: names, envelopes, bounds, a message of its own for each
receiver."""
COLUMNS = {
    "p50": ("p50 µs", "{:,.0f}"),
    "p99": ("p99 µs", "{:,.0f}"),
    "python": ("CPU of Python", "{:.3f} s"),
    "server": ("CPU of the server", "{:.3f} s"),
    "bytes": ("bytes each", "{:,.0f}"),
    "share": ("share of a CPU", "{:.2%}"),
}
WRONGS = ("lost", "doubled", "disordered")


def condensed(data: dict[str, Any]) -> dict[str, Any]:
    """What the report needs of pytest-benchmark's JSON."""
    if "cases" in data:
        return data
    machine = data["machine_info"]
    cases: dict[str, dict[str, Any]] = defaultdict(dict)
    for benchmark in data["benchmarks"]:
        info = benchmark["extra_info"]
        if "case" in info:
            rounds = [_rounded(figures) for figures in info["rounds"]]
            cases[info["case"]][info["contender"]] = rounds
    return {
        "date": data["datetime"][:10],
        "commit": data["commit_info"]["id"],
        "python": machine["python_version"],
        "cpu": machine["cpu"].get("brand_raw", machine["machine"]),
        **machine["layers"],
        "cases": cases,
    }


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        key: float(f"{value:.4g}") if isinstance(value, float) else value
        for key, value in figures.items()
    }


def table(head: list[str], lines: Iterator[list[str]]) -> Iterator[str]:
    """In Markdown."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for line in lines:
        yield "| " + " | ".join(line) + " |"
    yield ""


def report(data: dict[str, Any]) -> Iterator[str]:
    """The lines of the report."""
    found: Found = data["cases"]
    yield "# The layer alone, in full"
    yield ""
    yield from _machine(data)
    yield ""
    yield NOT_SHOWN
    yield ""
    yield "## Targets"
    yield ""
    verdicts = (list(target.verdict(found)) for target in TARGETS)
    yield from table(["what", "needed", "found", "", "the bare client"], verdicts)
    yield "## Where this package is behind"
    yield ""
    rows = (
        [case, f"{ours} to {other}", _shown(times, "{:.2f}")]
        for case, ours, other, times in losses(found)
    )
    yield from table(["case", "which", "times its rate"], rows)
    for name, case in CASES.items():
        if name in found:
            yield f"## {case.title[0].upper()}{case.title[1:]}"
            yield ""
            yield from _case(found[name], case.unit)


def _machine(data: dict[str, Any]) -> Iterator[str]:
    versions = {"Python": data["python"], **data["packages"], **data["servers"]}
    load = ", ".join(f"{value:.1f}" for value in data["load"])
    text = (
        f"On {data['date']}, commit {data['commit'][:7]}: {data['cpu']}, "
        f"{data['cpus']} CPUs, {data['system']}, load before it {load}; event loop "
        f"{data['loop']}; {data['rounds']} rounds in turns, about "
        f"{data['seconds']:g} s each. "
    )
    text += ", ".join(f"{name} {version}" for name, version in versions.items())
    yield from filled(text)
    yield ""
    yield "CPU is in seconds per 10,000 deliveries. *core ÷* and *pubsub ÷*: how many"
    yield "times its rate this package's layers reach, each with its defaults."
    yield "The server lets a subscriber be 256 MB behind (by default 32), as large"
    yield "messages need."


def _case(found: dict[str, Rounds], unit: str) -> Iterator[str]:
    kinds = [kind for kind in ("core", "pubsub") if kind in found and unit]
    keys = [key for key in COLUMNS if any(middle(r, key) for r in found.values())]
    head = ["", *([unit] if unit else []), *(f"{kind} ÷" for kind in kinds)]
    head += [COLUMNS[key][0] for key in keys] + ["wrong"]
    lines = (
        [
            name,
            *([_shown(middle(rounds, "rate"), "{:,.0f}")] if unit else []),
            *(_compared(found, kind, name) for kind in kinds),
            *(_value(middle(rounds, key), COLUMNS[key][1]) for key in keys),
            _wrong(rounds),
        ]
        for name, rounds in found.items()
    )
    yield from table(head, lines)


def _compared(found: dict[str, Rounds], kind: str, name: str) -> str:
    if name == kind or CONTENDERS[name].kind not in ("", kind):
        return ""
    return _shown(ratio(found[kind], found[name]), "{:.2f}")


def _shown(found: Middle | None, form: str) -> str:
    if found is None or not found.high:
        return ""
    middle, low, high = map(form.format, (found.value, found.low, found.high))
    return f"{middle} ({low} to {high})"


def _value(found: Middle | None, form: str) -> str:
    return form.format(found.value) if found else ""


def _wrong(rounds: Rounds) -> str:
    counts = {key: sum(one.get(key, 0) for one in rounds) for key in WRONGS}
    said = [f"{count:,} {key}" for key, count in counts.items() if count]
    said += sorted({f"failed: {one['failure']}" for one in rounds if "failure" in one})
    return ", ".join(said)


def main(found: str = str(SHORT), folder: str = str(SHORT.parent)) -> None:
    """Writes the report, its plots and what they show, and the table of the docs."""
    from plots import draw  # which tests need not have

    data = condensed(json.loads(Path(found).read_text()))
    to = Path(folder)
    to.mkdir(parents=True, exist_ok=True)
    (to / SHORT.name).write_text(compact(data))
    (to / "layers.md").write_text("\n".join(report(data)) + "\n")
    draw(data["cases"], to)
    if to.samefile(SHORT.parent):
        update(data)
    for target in TARGETS:
        print("  ".join(target.verdict(data["cases"])))


def compact(data: dict[str, Any]) -> str:
    """JSON with a line for each contender, so that differences can be read."""
    head = {key: value for key, value in data.items() if key != "cases"}
    cases = ",\n".join(
        f"{json.dumps(case)}: {{\n{_lines(each)}\n}}"
        for case, each in data["cases"].items()
    )
    return f'{json.dumps(head)[:-1]}, "cases": {{\n{cases}\n}}}}\n'


def _lines(found: dict[str, Rounds]) -> str:
    return ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in found.items())


if __name__ == "__main__":
    main(*sys.argv[1:])
