"""The metrics by which Prometheus knows a layer: their names, and where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..types import HostStats, Stats

# A value of a metric for each combination of its labels.
Values = Iterator[tuple[tuple[str, ...], Any]]


class Metric(NamedTuple):
    """A metric; `kind` is "counter", "histogram", or how a gauge's processes add up."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...]
    read: Callable[[Stats], Values]


def _one(name: str) -> Callable[[Stats], Values]:
    return lambda stats: iter([((), stats[name])])  # type: ignore[literal-required]


def _each(name: str) -> Callable[[Stats], Values]:
    def read(stats: Stats) -> Values:
        for label, value in stats[name].items():  # type: ignore[literal-required]
            yield (label,), value

    return read


def _hosts(value: Callable[[HostStats], Any]) -> Callable[[Stats], Values]:
    def read(stats: Stats) -> Values:
        for host, found in stats["hosts"].items():
            yield (host,), value(found)

    return read


METRICS = [
    Metric(
        "channel_layer_messages_sent_total",
        "counter",
        "Messages that Redis took, or that are in a buffer without confirm_sends.",
        ("kind",),
        _each("sent"),
    ),
    Metric(
        "channel_layer_messages_received_total",
        "counter",
        "Messages that came from Redis for somebody here.",
        (),
        _one("received"),
    ),
    Metric(
        "channel_layer_deliveries_total",
        "counter",
        "Messages received, times the channels each was for.",
        (),
        _one("delivered"),
    ),
    Metric(
        "channel_layer_dropped_total",
        "counter",
        "Messages dropped by this process.",
        ("reason",),
        _each("dropped"),
    ),
    Metric(
        "channel_layer_full_total",
        "counter",
        "Sends that raised ChannelFull, and processes that missed a group's message.",
        ("kind",),
        _each("full"),
    ),
    Metric(
        "channel_layer_reconnects_total",
        "counter",
        "Connections that came after one was missed.",
        ("host",),
        _hosts(lambda host: host["reconnects"]),
    ),
    Metric(
        "channel_layer_up",
        "livemin",
        "0 while a process misses a connection to the host.",
        ("host",),
        _hosts(lambda host: int(host["state"] != "down")),
    ),
    Metric(
        "channel_layer_waiting_messages",
        "livesum",
        "Messages in processes that nobody has read yet.",
        (),
        _one("waiting"),
    ),
    Metric(
        "channel_layer_mailboxes",
        "livesum",
        "Channels of this process.",
        (),
        _one("mailboxes"),
    ),
    Metric(
        "channel_layer_members",
        "livesum",
        "Memberships of these channels in groups.",
        (),
        _one("memberships"),
    ),
    Metric(
        "channel_layer_subscriptions",
        "livesum",
        "Names that Pub/Sub hears.",
        (),
        _one("subscriptions"),
    ),
    Metric(
        "channel_layer_processes",
        "livemax",
        "Processes of the layer that live, this one included; 0: not known.",
        (),
        _one("processes"),
    ),
    Metric(
        "channel_layer_unanswered",
        "livesum",
        "Commands that wait for their reply.",
        ("host",),
        _hosts(lambda host: host["unanswered"]),
    ),
    Metric(
        "channel_layer_oldest_unanswered_seconds",
        "livemax",
        "How long the first of them has waited.",
        ("host",),
        _hosts(lambda host: host["oldest_unanswered"]),
    ),
    Metric(
        "channel_layer_roundtrip_seconds",
        "histogram",
        "How long Redis takes to answer a PING, once a second where it is used.",
        ("host",),
        _hosts(lambda host: host["roundtrips"]),
    ),
]
