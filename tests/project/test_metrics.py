"""The board, the alert rules and the page know the metrics that there are."""

from __future__ import annotations

import json
import re

import pytest

from channels_redis_fast.contrib._metrics import METRICS
from support.paths import DOCS

NAMES = {metric.name for metric in METRICS}
SERIES = {
    "counter": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}


def series() -> set[str]:
    """The names of what Prometheus stores."""
    return {
        f"{one.name}{end}" for one in METRICS for end in SERIES.get(one.kind, ("",))
    }


@pytest.mark.parametrize("name", ["operations/grafana.json", "operations/alerts.yml"])
def test_they_ask_for_what_there_is(name: str) -> None:
    used = set(re.findall(r"\bchannel_layer_\w+", (DOCS / name).read_text()))
    assert len(used) > 4
    assert used <= series()


def test_the_board_shows_every_metric() -> None:
    text = (DOCS / "operations/grafana.json").read_text()
    json.loads(text)
    assert [name for name in NAMES if name not in text] == []


def test_every_metric_has_its_row() -> None:
    page = (DOCS / "operations.md").read_text()
    shown = re.findall(r"^\| `(channel_layer_\w+)`", page, re.MULTILINE)
    assert sorted(shown) == sorted(NAMES)
