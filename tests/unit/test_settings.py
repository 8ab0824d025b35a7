"""Every option of both layers arrives in the settings, which nobody changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from channels_redis_fast._masking import Masked
from channels_redis_fast._options import options_of
from channels_redis_fast._settings import Settings
from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.pubsub import RedisPubSubChannelLayer

# None of them a default.
VALUES: dict[str, Any] = {
    "hosts": [("localhost", 6380)],
    "prefix": "other",
    "liveness": 20.0,
    "expiry": 30,
    "group_expiry": 3600,
    "capacity": 7,
    "channel_capacity": {"a*": 8},
    "symmetric_encryption_keys": ["a key"],
    "random_prefix_length": 16,
    "serializer_format": "json",
    "encryption": "aes-gcm",
    "refresh_groups": False,
    "command_timeout": 4.0,
    "max_message_size": 1000,
    "confirm_sends": False,
    "prefetch": 3,
    "history": {"room-*": (1, 2)},
    "on_disconnect": "gone",
    "on_reconnect": "back",
    "normal_channels": "broadcast",
    "sharded_pubsub": False,
}
OPTIONS = [
    (kind, option)
    for kind in (RedisChannelLayer, RedisPubSubChannelLayer)
    for option in options_of(kind)
]


@pytest.mark.parametrize(("kind", "option"), OPTIONS)
def test_an_option_arrives(kind: Any, option: str) -> None:
    before, after = kind()._settings, kind(**{option: VALUES[option]})._settings
    assert _value(before, option) != VALUES[option]
    assert _value(after, option) == VALUES[option]
    others = {field.name for field in dataclasses.fields(Settings)} - {option}
    assert {n: _value(before, n) for n in others} == {
        n: _value(after, n) for n in others
    }


def test_every_setting_is_an_option() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert fields == VALUES.keys() == {option for _, option in OPTIONS}


def test_settings_stay_as_they_are() -> None:
    settings = RedisChannelLayer()._settings
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.expiry = 1  # type: ignore[misc]


def test_settings_show_no_secret() -> None:
    hosts, keys = ["redis://:s3cr3t@localhost"], ["s3cr3t"]
    layer = RedisChannelLayer(hosts=hosts, symmetric_encryption_keys=keys)
    assert "s3cr3t" not in repr(layer._settings)


def _value(settings: Settings, name: str) -> Any:
    value = getattr(settings, name)
    return value.value if isinstance(value, Masked) else value
