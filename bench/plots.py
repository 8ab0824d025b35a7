"""Bars of what was found, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from summary import middle
from targets import Found

STYLE = {"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9}
COLOURS = {
    "core": "#1b6ca8",
    "core-unconfirmed": "#62a8db",
    "pubsub": "#12805c",
    "pubsub-unconfirmed": "#5cc3a0",
    "channels_redis-core": "#b5482a",
    "channels_redis-pubsub": "#e0906f",
    "channels_nats": "#8a5fa8",
    "consumer as it is": "#999999",
    "with FastDispatchMixin": "#1b6ca8",
    "and @broadcast": "#12805c",
    "limit-core": "#bbbbbb",
    "limit-pubsub": "#dddddd",
}
# File, title, unit, figure, and the cases with what stands below their bars.
PLOTS = (
    (
        *("senders.svg", "To one receiver in another process", "messages/s", "rate"),
        {f"senders-{n}-in-two": f"{n} senders" for n in (1, 20, 200)},
    ),
    (
        *("groups.svg", "To a group, the sender in a process of its own"),
        *("deliveries/s", "rate"),
        {
            **{f"group-{n}-in-two": f"{n:,} members" for n in (100, 1_000, 10_000)},
            "group-1000-in-four": "1,000 in four\nprocesses",
        },
    ),
    (
        *("latency.svg", "There and back, in two processes", "µs"),
        *("p50", {"ping-pong-in-two": "half of them (p50)"}),
    ),
)


def draw(found: Found, folder: Path) -> None:
    """Writes the plots of what was measured."""
    for name, title, unit, key, cases in PLOTS:
        there = {case: text for case, text in cases.items() if case in found}
        names = [n for n in COLOURS if any(n in found[case] for case in there)]
        if names:
            with mpl.rc_context(STYLE):
                bars(found, folder / name, title, unit, key, there, names)


def bars(
    found: Found,
    path: Path,
    title: str,
    unit: str,
    key: str,
    cases: dict[str, str],
    names: Sequence[str],
) -> None:
    """Writes a bar for each name in each case."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.85 / len(names)
    for index, name in enumerate(names):
        values = [middle(found[case].get(name, ()), key) for case in cases]
        at = [place + (index + 0.5) * width - 0.425 for place in range(len(cases))]
        heights = [value.value if value else 0 for value in values]
        errors = [
            [value.value - value.low if value else 0 for value in values],
            [value.high - value.value if value else 0 for value in values],
        ]
        axes.bar(
            *(at, heights, width),
            label=name,
            color=COLOURS[name],
            yerr=errors,
            error_kw={"linewidth": 0.8, "ecolor": "#444444"},
        )
    axes.set_xticks(range(len(cases)), list(cases.values()))
    axes.set_yscale("log")  # a step of the same height is the same ratio
    axes.set_ylabel(f"{unit}, logarithmic")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(f"{title} (medians; lines: range)", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=1, bbox_to_anchor=(1, 1))
    figure.savefig(path, metadata={"Date": None})
