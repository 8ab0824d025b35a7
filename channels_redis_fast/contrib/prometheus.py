"""Channel layers as Prometheus scrapes them: `install()`, once for each process."""

from __future__ import annotations

import atexit
import itertools
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from .._counting import BOUNDS
from ..types import Stats
from ._metrics import METRICS, Metric

try:
    import prometheus_client
    from prometheus_client import core
    from prometheus_client.registry import Collector, CollectorRegistry
    from prometheus_client.utils import floatToGoString
except ImportError as error:
    text = "no prometheus_client: pip install 'channels_redis_fast[prometheus]'"
    raise ImportError(text) from error

__all__ = ["install"]

WRITE_EVERY = 5.0  # seconds


def install(
    registry: CollectorRegistry = prometheus_client.REGISTRY,
    layers: Mapping[str, Any] | None = None,
) -> None:
    """Has a registry tell what the layers of this process do.

    Those of `CHANNEL_LAYERS` that are in use when it is asked, or these `layers`, by
    the value of the label `layer`. Of other packages' layers it tells nothing. Raises
    `ValueError` if the registry has such metrics already.

    With `PROMETHEUS_MULTIPROC_DIR` each process writes down what it did, every five
    seconds and at its end; `prometheus_client.multiprocess` adds that up.
    """
    found = _Layers(layers)
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        _Writer(found, registry).begin()
    else:
        registry.register(_LayerCollector(found))


class _Layers:
    """What the layers tell."""

    def __init__(self, layers: Mapping[str, Any] | None) -> None:
        self._layers = layers

    def __iter__(self) -> Iterator[tuple[str, Stats]]:
        """Each layer's name, and what it tells."""
        layers = _layers_in_use() if self._layers is None else self._layers
        for name, layer in list(layers.items()):
            if hasattr(layer, "stats"):
                yield name, layer.stats()


def _layers_in_use() -> Mapping[str, Any]:
    from channels.layers import channel_layers  # which needs Django's settings

    found: Mapping[str, Any] = channel_layers.backends
    return found


class _LayerCollector(Collector):
    """Asks the layers when it is scraped."""

    def __init__(self, layers: _Layers) -> None:
        self._layers = layers

    def describe(self) -> list[core.Metric]:
        """The metrics without a value."""
        return list(map(_family, METRICS))

    def collect(self) -> Iterator[core.Metric]:
        """The metrics with all values."""
        layers = list(self._layers)
        for metric in METRICS:
            family = _family(metric)
            for name, stats in layers:
                for labels, value in metric.read(stats):
                    _add(family, [name, *labels], value)
            yield family


def _family(metric: Metric) -> Any:
    kind = {
        "counter": core.CounterMetricFamily,
        "histogram": core.HistogramMetricFamily,
    }.get(metric.kind, core.GaugeMetricFamily)
    return kind(metric.name, metric.text, labels=["layer", *metric.labels])


def _add(family: Any, labels: list[str], value: Any) -> None:
    if not isinstance(value, dict):
        family.add_metric(labels, value)
        return
    bounds = [*map(floatToGoString, value["bounds"]), "+Inf"]
    counts = itertools.accumulate(value["counts"])
    buckets = list(zip(bounds, counts, strict=True))
    family.add_metric(labels, buckets, value["sum"])


class _Writer:
    """Adds to metrics that all processes share what happened since the last time.

    Those of a collector would be told by the process alone that is scraped.
    """

    def __init__(self, layers: _Layers, registry: CollectorRegistry) -> None:
        self._layers = layers
        self._metrics = [(each, _shared(each, registry)) for each in METRICS]

    def begin(self) -> None:
        """Begins to write, here and in each child, whose layers begin at zero."""
        self._go_on()
        if hasattr(os, "register_at_fork"):
            # Not while it writes: a child would wait for locks that its parent holds.
            os.register_at_fork(
                before=lambda: self._lock.acquire(),
                after_in_parent=lambda: self._lock.release(),
                after_in_child=self._go_on,
            )
        atexit.register(self._write)

    def _go_on(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[Any, Any] = {}
        threading.Thread(target=self._run, name="channel layers", daemon=True).start()

    def _run(self) -> None:
        forever = threading.Event()
        while not forever.wait(WRITE_EVERY):
            self._write()

    def _write(self) -> None:
        with self._lock:
            for name, stats in self._layers:
                for metric, shared in self._metrics:
                    for labels, value in metric.read(stats):
                        self._tell(metric, shared.labels(name, *labels), value)

    def _tell(self, metric: Metric, shared: Any, value: Any) -> None:
        """Brings what all share up to a value of this process."""
        before, self._told[shared] = self._told.get(shared), value
        if metric.kind == "counter":
            shared.inc(value - (before or 0))
        elif metric.kind == "histogram":
            _raise_histogram(shared, value, before or _NO_DURATIONS)
        else:
            shared.set(value)


_NO_DURATIONS = {"counts": [0] * (len(BOUNDS) + 1), "sum": 0.0}


def _shared(metric: Metric, registry: CollectorRegistry) -> Any:
    name, text, labels = metric.name, metric.text, ["layer", *metric.labels]
    if metric.kind == "counter":
        return prometheus_client.Counter(name, text, labels, registry=registry)
    if metric.kind == "histogram":
        return prometheus_client.Histogram(
            name, text, labels, registry=registry, buckets=BOUNDS
        )
    mode: Any = metric.kind
    return prometheus_client.Gauge(
        name, text, labels, registry=registry, multiprocess_mode=mode
    )


def _raise_histogram(shared: Any, value: Any, before: Any) -> None:
    # `observe` takes one at a time, of which each is in a bucket already.
    for bucket, now, then in zip(
        shared._buckets, value["counts"], before["counts"], strict=True
    ):
        bucket.inc(now - then)
    shared._sum.inc(value["sum"] - before["sum"])
