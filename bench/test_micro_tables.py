"""Names, hashing, capacity and fan-out: compiled, readable Python, and the incumbent.

Every row is 1,000 calls, or one call with 1,000 group members, so that microseconds
read as nanoseconds per name; but 2,000 calls where the group says so. The loop around
the calls costs the same in each row of a group. A floor is what nothing can go below.
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Callable, Iterable

import pytest
from channels.layers import BaseChannelLayer
from channels_redis.core import RedisChannelLayer
from channels_redis.utils import _consistent_hash

from channels_redis_fast.wire import _capacity, _fanout, _hashing, _names
from support import reference

draw = random.Random(1)
base = BaseChannelLayer()


def hex_of_32() -> str:
    return f"{draw.getrandbits(128):032x}"


PROCESS = f"specific.{hex_of_32()}!"
CHANNELS = {
    "process": [PROCESS + hex_of_32() for _ in range(1000)],
    "normal": [f"worker-{number}" for number in range(1000)],
}
RULES = [
    ("http.request", 200),
    ("http.response!*", 10),
    (re.compile(r"^websocket.send\!.+"), 20),
]


def group(name: str) -> pytest.MarkDecorator:
    return pytest.mark.benchmark(group=name, max_time=0.1, disable_gc=True)


def by(**functions: Callable) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("function", functions.values(), ids=functions)


each_kind = pytest.mark.parametrize("kind", CHANNELS)


def call_each(function: Callable, arguments: Iterable) -> None:
    deque(map(function, arguments), maxlen=0)


def channels_non_local_name(name: str) -> str:
    assert base.require_valid_channel_name(name)
    return base.non_local_name(name)


@group("non_local_name")
@each_kind
@by(
    compiled=_names.non_local_name,
    reference=reference.non_local_name,
    channels=channels_non_local_name,
)
def test_non_local_name(benchmark, function, kind) -> None:
    benchmark(call_each, function, CHANNELS[kind])


@group("check_group")
@by(
    compiled=_names.check_group,
    reference=reference.check_group,
    channels=base.require_valid_group_name,
)
def test_check_group(benchmark, function) -> None:
    benchmark(call_each, function, [f"chat_room_{number}" for number in range(1000)])


@group("split_local")
@each_kind
@by(
    compiled=_names.split_local,
    floor=callable,
    reference=reference.split_local,
    channels=base.non_local_name,
)
def test_split_local(benchmark, function, kind) -> None:
    benchmark(call_each, function, CHANNELS[kind])


@group("shard_of")
@by(
    compiled=_hashing.shard_of,
    reference=reference.shard_of,
    channels_redis=_consistent_hash,
)
def test_shard_of(benchmark, function) -> None:
    names = [f"specific.{hex_of_32()}!" for _ in range(1000)]
    benchmark(lambda: deque(map(function, names, [4] * 1000), maxlen=0))


def channels_lookup(rules: list) -> Callable[[str], int]:
    layer = BaseChannelLayer(capacity=100)
    layer.channel_capacity = layer.compile_capacities(dict(rules))
    return layer.get_capacity


LOOKUPS = {
    "compiled": lambda rules: _capacity.CapacityTable(100, rules).lookup,
    "reference": lambda rules: reference.CapacityTable(100, rules).lookup,
    "channels": channels_lookup,
}
lookups = by(**LOOKUPS)


@group("lookup")
@each_kind
@lookups
def test_lookup(benchmark, function, kind) -> None:
    benchmark(call_each, function(RULES), CHANNELS[kind])


@group("lookup, without rules")
@lookups
def test_lookup_without_rules(benchmark, function) -> None:
    benchmark(call_each, function([]), CHANNELS["process"])


@group("lookup, by a regex")
@lookups
def test_lookup_by_regex(benchmark, function) -> None:
    names = [f"websocket.send!{number}" for number in range(1000)]
    benchmark(call_each, function(RULES), names)


@group("lookup, by a regex, 2,000 names: more than are remembered")
@by(**LOOKUPS, floor=lambda rules: rules[-1][0].match)
def test_lookup_of_many_by_regex(benchmark, function) -> None:
    names = [f"websocket.send!{number}" for number in range(2000)]
    benchmark(call_each, function(RULES), names)


def channels_redis_bundle(members: list[bytes]) -> None:
    """Packs one small message for each key besides, and looks up its capacity."""
    layer = RedisChannelLayer(hosts=["redis://localhost"])
    names = [member.decode("utf8") for member in members]
    layer._map_channel_keys_to_connection(names, {"type": "chat.message"})


@group("bundle")
@pytest.mark.parametrize("processes", [1, 4, 40, 400])
@by(
    compiled=_fanout.bundle,
    reference=reference.bundle,
    channels_redis=channels_redis_bundle,
)
def test_bundle(benchmark, function, processes) -> None:
    keys = [f"specific.{hex_of_32()}!" for _ in range(processes)]
    members = [(draw.choice(keys) + hex_of_32()).encode() for _ in range(1000)]
    benchmark(function, members)
