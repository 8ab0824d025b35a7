"""What `make bench-end-to-end` found, as tables and a plot: `browsers.py [FOUND.json]`.

FOUND is what measure.py wrote, or the shorter one that this writes beside the report.
Medians of rounds in which the contenders took turns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).parents[1]))
sys.path.insert(2, str(Path(__file__).parents[2] / "tests"))

from measure import judged
from rows import BARE, KINDS, LAYERS, ROWS, Row

from headline import PERFORMANCE, README, RESULTS, filled, put
from summary import Rounds, middle

SHORT = RESULTS / "browsers.json"
MARKS = {README: "end to end", PERFORMANCE: "browsers"}
TITLES = dict(
    zip(
        KINDS,
        ("consumer as it is", "with FastDispatchMixin", "and @broadcast"),
        strict=True,
    )
)
NAMES = {
    "core": "core",
    "pubsub": "Pub/Sub",
    "channels_redis-core": "channels_redis core",
    "channels_redis-pubsub": "channels_redis Pub/Sub",
}
# Figures of the report: their titles, and how many stand for a unit.
COLUMNS = {
    "rate": ("deliveries/s", "{:,.0f}", 1),
    "cpu": ("CPU of the server, µs each", "{:,.1f}", 1),
    "half_cpu": ("at half that rate", "{:,.1f}", 1),
    "p50": ("to the last socket, p50 ms", "{:,.1f}", 1),
    "p99": ("p99 ms", "{:,.1f}", 1),
    "answers": ("answers/s", "{:,.0f}", 1),
    "memory": ("KiB for each connection", "{:,.1f}", 1024),
}
PLOT = "browsers.svg"
CAPTION = "To 1,000 browsers, through one server process"
SHOWN = ("group-1000", "groups-of-10", "group-1000-4k")
Found = dict[str, dict[str, Rounds]]


def table(head: list[str], lines: Iterator[list[str]]) -> Iterator[str]:
    """In Markdown."""
    yield "| " + " | ".join(head) + " |"
    yield "|---|" + "---|" * (len(head) - 1)
    for line in lines:
        yield "| " + " | ".join(line) + " |"


def cell(rounds: Rounds, key: str, ranges: bool = False) -> str:
    """One figure's median, perhaps with its range; empty if it wasn't measured."""
    found = middle(rounds, key)
    if found is None:
        return ""
    _, form, unit = COLUMNS[key]
    value, low, high = (
        form.format(one / unit) for one in (found.value, found.low, found.high)
    )
    return f"{value} ({low} to {high})" if ranges else value


def headline(data: dict[str, Any]) -> Iterator[str]:
    """What stands in the README: the plot, and its figures."""
    found: Found = data["rows"]
    yield f"![{CAPTION}](docs/measured/{PLOT})"
    yield ""
    row = next(row for row in ROWS if row.name == SHOWN[0])
    head = [f"{row.title}: deliveries/s", *TITLES.values()]
    shown = found.get(row.name, {})
    yield from table(head, (line(shown, *names, "rate") for names in NAMES.items()))
    yield ""
    yield from filled(
        f"{data['date']}, {data['cpu']}, {data['cpus']} cores for all: read the "
        "ratios, and [how they were measured](docs/performance.md)."
    )


def summary(data: dict[str, Any]) -> Iterator[str]:
    """What stands in the docs."""
    yield from filled(about(data))
    yield ""
    yield f"![{CAPTION}](measured/{PLOT})"
    yield ""
    measured = (one for one in rows_of_docs(data["rows"]) if any(one[1:]))
    yield from table(["", *TITLES.values()], measured)
    yield ""
    yield from filled(
        "† Frames were lost, or came twice or late. [The full report]"
        "(measured/browsers.md) has all rows, ranges and targets."
    )


def rows_of_docs(found: Found) -> Iterator[list[str]]:
    """The deliveries to sockets by layer, then what else a site feels."""
    for row in ROWS:
        if row.name not in found:
            continue
        for layer, name in NAMES.items():
            if row.name in SHOWN:
                text = f"**{name}**, {row.title}: deliveries/s (server CPU, µs each)"
                yield line(found[row.name], layer, text, "rate", "cpu")
        for layer in ("channels_redis-core", "core"):
            name = NAMES[layer]
            if row.name == SHOWN[0]:
                text = f"{name}, {row.title}: ms to the last, at half that rate"
                yield line(found[row.name], layer, text, "p50")
            elif row.measures != "deliveries" and row.name != "idle-10000":
                key = row.measures
                text = f"{name}, {row.title}: {COLUMNS[key][0]}"
                yield line(found[row.name], layer, text, key)


def line(
    cases: dict[str, Rounds], layer: str, text: str, key: str, beside: str = ""
) -> list[str]:
    """One layer with each kind of consumer."""
    cells = []
    for kind in KINDS:
        rounds = cases.get(f"{layer} {kind}", ())
        shown = cell(rounds, key)
        if shown and beside:
            shown += f" ({cell(rounds, beside)})"
        cells.append(shown + " †" * bool(wrongs(rounds)))
    return [text, *cells]


def wrongs(rounds: Rounds) -> str:
    """What went wrong, in words."""
    counts = {k: sum(one.get(k, 0) for one in rounds) for k in ("lost", "wrong")}
    said = [f"{count:,} {key}" for key, count in counts.items() if count]
    said += sorted({one["failure"] for one in rounds if "failure" in one})
    return ", ".join(said)


def about(data: dict[str, Any]) -> str:
    """Where and when it was measured."""
    versions = {"Python": data["python"], **data["servers"], **data["packages"]}
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Measured on {data['date']}: {data['cpu']}, {data['cpus']} cores (load before "
        f"it: {data['load'][0]:.1f}), loopback, {said}. Medians of {data['rounds']} "
        "rounds in which all took turns. Server, clients and sender share the cores: "
        "read the ratios, not the rates."
    )


def report(data: dict[str, Any]) -> Iterator[str]:
    """The lines of the whole report."""
    found: Found = data["rows"]
    yield "# To browsers, in full"
    yield ""
    yield from filled(about(data))
    yield ""
    yield from filled(
        "One server process has all clients. A rate is the highest at which no message "
        "was behind by more than the mailboxes hold; times are from `group_send` to "
        "the last socket, at half of that rate. *bare* is an application without "
        "Channels that sends its sockets what is published over redis-py."
    )
    yield ""
    yield "## Targets"
    yield ""
    yield from table(["what", "at most", "found", ""], judged(found))
    for row in ROWS:
        if row.name in found:
            yield from ("", f"## {row.title[0].upper()}{row.title[1:]}", "")
            yield from case(found[row.name], row)


def case(cases: dict[str, Rounds], row: Row) -> Iterator[str]:
    """The table of one row: a line for each contender."""
    keys = [key for key in COLUMNS if any(middle(r, key) for r in cases.values())]
    lines = (
        [
            "bare" if name == BARE else name,
            *(cell(rounds, key, ranges=True) for key in keys),
            wrongs(rounds),
        ]
        for name, rounds in cases.items()
    )
    yield from table(["", *(COLUMNS[key][0] for key in keys), "wrong"], lines)


def draw(found: Found, folder: Path) -> None:
    """Writes the plot: each layer with each kind of consumer."""
    from plots import STYLE, bars, mpl  # which tests need not have

    row = next((name for name in SHOWN if name in found), None)
    if row is None:
        return
    cases = {
        layer: {
            TITLES[kind]: found[row][f"{layer} {kind}"]
            for kind in KINDS
            if f"{layer} {kind}" in found[row]
        }
        for layer in LAYERS
    }
    with mpl.rc_context(STYLE):
        bars(
            *(cases, folder / PLOT),
            CAPTION,
            *("deliveries/s", "rate", NAMES, list(TITLES.values())),
        )


def main(path: str = str(SHORT), folder: str = str(RESULTS)) -> None:
    """Writes the report, its plot, and the tables of the README and the docs."""
    data = json.loads(Path(path).read_text())
    to = Path(folder)
    lines = ",\n".join(
        f" {json.dumps(name)}: {json.dumps(rounded(cases))}"
        for name, cases in data["rows"].items()
    )
    head = json.dumps({key: value for key, value in data.items() if key != "rows"})
    (to / SHORT.name).write_text(f'{head[:-1]}, "rows": {{\n{lines}\n}}}}\n')
    (to / "browsers.md").write_text("\n".join(report(data)) + "\n")
    draw(data["rows"], to)
    if to.samefile(RESULTS):
        put(headline(data), README, MARKS[README])
        put(summary(data), PERFORMANCE, MARKS[PERFORMANCE])


def rounded(value: Any) -> Any:
    """With four digits."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main(*sys.argv[1:])
