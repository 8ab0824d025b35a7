"""The parts of the reports that stand in the README and in docs/performance.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any

from cases import CASES
from summary import middle
from targets import Found, losses

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "docs" / "measured"
COLUMNS = {
    "core": "core",
    "pubsub": "Pub/Sub",
    "channels_redis-core": "channels_redis core",
    "channels_redis-pubsub": "channels_redis Pub/Sub",
    "channels_nats": "channels_nats",
}
ROWS = (
    *("ping-pong-in-one", "senders-1-in-two", "senders-20-in-two"),
    *("senders-200-in-two", "encrypted-20-in-two", "size-64-in-two"),
    *("size-900-in-two", "group-100-in-one", "group-1000-in-two"),
    *("group-1000-in-four", "group-10000-in-two", "readers-4", "sync", "idle"),
)


def filled(text: str) -> list[str]:
    """Lines of a paragraph, or of a point of a list."""
    indent = "  " * text.startswith("* ")
    return wrap(text, 88, break_on_hyphens=False, subsequent_indent=indent)


def headline(data: dict[str, Any]) -> Iterator[str]:
    """The lines between the marks."""
    found: Found = data["cases"]
    versions = {"Python": data["python"], **data["servers"], **data["packages"]}
    shown = ("Python", "valkey-server", "nats-server", "redis", "hiredis")
    shown += ("channels_redis", "channels_nats")
    said = ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
    text = (
        f"Measured on {data['date']}: {data['cpu']}, {data['cpus']} cores (load before "
        f"it: {data['load'][0]:.1f}), loopback, {said}. Medians of {data['rounds']} "
        "rounds in which the layers took turns: read the ratios, not the rates."
    )
    yield from filled(text)
    yield ""
    yield "| what | " + " | ".join(COLUMNS.values()) + " |"
    yield "|---|" + "---|" * len(COLUMNS)
    for name in ROWS:
        if name in found:
            yield _row(found, name)
    yield ""
    yield from _behind(found)


def _row(found: Found, name: str) -> str:
    case = CASES[name]
    key, unit = ("rate", case.unit) if case.unit else ("bytes", "bytes each")
    cells = []
    for contender in COLUMNS:
        rounds = found[name].get(contender, ())
        value = middle(rounds, key)
        wrong = sum(one.get("lost", 0) + one.get("doubled", 0) for one in rounds)
        text = f"{value.value:,.0f}" if value else ""
        cells.append(text + " †" * bool(wrong))
    return f"| {case.title} ({unit}) | " + " | ".join(cells) + " |"


def _behind(found: Found) -> Iterator[str]:
    pairs: dict[str, list[str]] = defaultdict(list)
    for case, ours, other, times in losses(found):
        if other != "in-memory":
            text = f"`{case}` {times.value:.2f}"
            pairs[f"{COLUMNS[ours]} to {other}"].append(text)
    yield "† Messages were lost, or came more than once."
    yield ""
    yield "Where it is behind another layer, and how much of its rate it reaches:"
    yield ""
    for pair, cases in pairs.items():
        yield from filled(f"* {pair}: {', '.join(cases)}")
    if not pairs:
        yield "* nowhere"


def update(data: dict[str, Any]) -> None:
    """Puts it into the page."""
    put(headline(data), PERFORMANCE, "measured")


def put(lines: Iterable[str], page: Path, mark: str) -> None:
    """Puts lines between the two marks of a page."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->\n"
    before, begun, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"{page} has no marks {begin.strip()} {end.strip()}")
    joined = "\n".join(lines)
    page.write_text(f"{before}{begin}\n{joined}\n\n{end}{after}")
