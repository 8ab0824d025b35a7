"""What applications do with channels_redis's modules and layers besides calls."""

from __future__ import annotations

import copy
import importlib
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.pubsub import RedisPubSubChannelLayer
from support.layers import soon
from support.servers import Server
from support.syncing import KINDS

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize(
    ("module", "names"),
    {
        "core": ["BaseChannelLayer", "ChannelFull", "RedisChannelLayer"],
        "pubsub": ["BaseChannelLayer", "ChannelFull", "RedisPubSubChannelLayer"],
        "utils": ["create_pool", "decode_hosts"],
        "serializers": ["registry", "BaseMessageSerializer"],
    }.items(),
)
def test_names_to_import(module: str, names: list[str]) -> None:
    found = importlib.import_module(f"channels_redis_fast.{module}")
    assert all(hasattr(found, name) for name in names)


APPLICATION = """
import asyncio, sys
from django.conf import settings
HOST = sys.argv[1]
settings.configure(CHANNEL_LAYERS={
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [HOST], "capacity": 2, "serializer_format": "dotted"},
    },
    "pubsub": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [HOST], "symmetric_encryption_keys": ["secret"]},
    },
})
from channels.layers import get_channel_layer
from channels_redis.core import ChannelFull, RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer
from channels_redis.serializers import BaseMessageSerializer, registry
from channels_redis.utils import decode_hosts

class Dotted(BaseMessageSerializer):
    def as_bytes(self, message, *args, **kwargs):
        return repr(message).encode()
    def from_bytes(self, message, *args, **kwargs):
        return eval(message)

registry.register_serializer("dotted", Dotted)

async def main():
    core, pubsub = get_channel_layer(), get_channel_layer("pubsub")
    assert isinstance(core, RedisChannelLayer)
    assert isinstance(pubsub, RedisPubSubChannelLayer)
    for layer in core, pubsub:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        await layer.group_send("room", {"type": "chat.message"})
        print(await layer.receive(name))
    try:
        for _ in range(3):
            await core.send("jobs", {"type": "job"})
    except ChannelFull:
        print("full")
    await core.flush()
    await pubsub.flush()
    await core.close_pools()

asyncio.run(main())
print(len(decode_hosts([HOST])))
"""


@pytest.mark.slow
def test_one_word_turns_an_application_over(valkey: Server) -> None:
    """Its settings, imports, own format and calls, as docs/migrating.md says."""
    said = [
        subprocess.run(
            [sys.executable, "-c", program, valkey.url],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for program in (
            APPLICATION,
            APPLICATION.replace("channels_redis", "channels_redis_fast"),
        )
    ]
    assert said[0] == said[1]
    assert said[0].splitlines()[-2:] == ["full", "1"]


class Mine(RedisChannelLayer):
    """With a constructor of its own, as subclasses of applications have."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        super().__init__(hosts=[url], **options)


@pytest.mark.parametrize("act", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", KINDS)
async def test_layers_are_copied_by_their_settings(
    valkey: Server, kind: str, act: Callable[[Any], Any]
) -> None:
    made: Any = KINDS[kind](
        [valkey.url], "p", capacity=7, channel_capacity={re.compile("a"): 3}
    )
    name = await made.new_channel()
    await made.send(name, {"n": 1})  # used: it has connections, and locks
    layer = act(made)
    assert (layer.prefix, layer.capacity, layer.get_capacity("a")) == ("p", 7, 3)
    name = await layer.new_channel()
    await layer.send(name, {"n": 2})
    assert await soon(layer, name) == {"n": 2}
    await layer.close_pools()
    await made.close_pools()


@pytest.mark.parametrize("act", COPIES.values(), ids=COPIES)
def test_layers_of_a_subclass_are_copied(act: Callable[[Any], Any]) -> None:
    layer = act(Mine("redis://nowhere", expiry=9))
    assert (type(layer), layer.url, layer.expiry) == (Mine, "redis://nowhere", 9)


def test_deep_copies_share_what_connects() -> None:
    class Provider:
        lock = threading.Lock()  # can't be copied

    provider = Provider()
    entry = {"host": "nowhere", "credential_provider": provider}
    provider.lock = threading.Lock()
    layer = copy.deepcopy(RedisChannelLayer(hosts=[entry]))
    assert layer.hosts[0]["credential_provider"] is provider


@pytest.mark.parametrize("kind", KINDS)
async def test_a_pickled_name_is_a_plain_str(valkey: Server, kind: str) -> None:
    layer: Any = KINDS[kind](hosts=[valkey.url])
    name = await layer.new_channel()
    assert read_elsewhere(pickle.dumps(name)) == name
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert b"channels_redis_fast" not in pickle.dumps({"name": name}, protocol)
    await layer.close_pools()


def read_elsewhere(data: bytes) -> str:
    """What is pickled, read where this package isn't."""
    code = f"import pickle; print(pickle.loads({data!r}))"
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


SETTINGS = {
    "prefix": "other",
    "expiry": 5,
    "group_expiry": 5,
    "capacity": 2,
    "channel_capacity": {},
    "command_timeout": 2.0,
    "max_message_size": 10,
    "confirm_sends": False,
    "refresh_groups": False,
    "ring_size": 3,
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_settings_can_t_be_changed(kind: str, name: str) -> None:
    """A change would be obeyed by some parts of the layer."""
    layer: Any = KINDS[kind]()
    before = getattr(layer, name)
    with pytest.raises(AttributeError, match=f"{name} can't be changed"):
        setattr(layer, name, SETTINGS[name])
    assert getattr(layer, name) == before
    assert isinstance(layer.channel_capacity, tuple)  # not even its rules
    layer.receive_log = []  # attributes of an application's own


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (RedisChannelLayer, "create_pool"),
        (RedisChannelLayer, "connection"),
        (RedisPubSubChannelLayer, "_get_layer"),
        (RedisPubSubChannelLayer, "_get_shard"),
    ],
)
def test_overrides_that_nobody_would_call(kind: Any, name: str) -> None:
    parent = type("Parent", (kind,), {name: lambda self, *args: None})
    said = rf"Parent\.{name} would never be called.*`hosts`.*`credential_provider`"
    with pytest.raises(TypeError, match=said):
        type("Child", (parent,), {})()


@pytest.mark.parametrize("length", [-1, -12, 0])
async def test_no_unique_bytes(valkey: Server, length: int) -> None:
    layer = RedisChannelLayer(hosts=[valkey.url], random_prefix_length=length)
    await layer.send("worker", {"n": 1})
    assert valkey.client().zrange("asgiworker", 0, -1) == [b"\x81\xa1n\x01"]
    assert await soon(layer, "worker") == {"n": 1}
    await layer.close_pools()


async def test_fractions_of_expiries_are_rounded_up(valkey: Server) -> None:
    """In each command that sets one."""
    client = valkey.client()
    layer = RedisChannelLayer(hosts=[valkey.url], expiry=1.9, group_expiry=5.1)
    await layer.send("a", {})
    await layer.send_many([("b", {}), ("b", {})])
    await layer.group_add("room", "worker")
    await layer.group_send("room", {})
    for key in "asgia", "asgib", "asgiworker":
        assert 1_900 < client.pttl(key) <= 2_000
    assert 5_100 < client.pttl("asgi:group:room") <= 6_000
    await layer.close_pools()
