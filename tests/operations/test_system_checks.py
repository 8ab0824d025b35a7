"""`manage.py check`: each finding about settings provoked, and none on a right site."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from django.apps import AppConfig
from django.core.checks import run_checks
from django.test import override_settings

import support.consuming  # noqa: F401  configures Django
from channels_redis_fast import core
from channels_redis_fast.checks.deployment import check_deployment
from channels_redis_fast.checks.layers import check_layers
from support.paths import DOCS

CORE = "channels_redis_fast.core.RedisChannelLayer"
PUBSUB = "channels_redis_fast.pubsub.RedisPubSubChannelLayer"
HOST = "redis://redis.internal:6379"
KEY = "k" * 32


def found(check: Callable[[], Any] = check_layers, **settings: Any) -> dict[str, str]:
    """What a check finds by settings: its ids, without what all have, and texts."""
    with override_settings(**settings):
        messages = check()
    for one in messages:
        assert one.hint or one.id.endswith("E001")
    return {one.id.removeprefix("channels_redis_fast."): one.msg for one in messages}


def layers(backend: str = CORE, **config: Any) -> dict[str, Any]:
    """CHANNEL_LAYERS with one layer."""
    return {"default": {"BACKEND": backend, "CONFIG": {"hosts": [HOST], **config}}}


def cache(
    location: Any,
    kind: str = "django.core.cache.backends.redis.RedisCache",
    **options: Any,
) -> dict[str, Any]:
    """CACHES with one in Redis."""
    return {"default": {"BACKEND": kind, "LOCATION": location, "OPTIONS": options}}


RIGHT = {
    "plain": layers(),
    "many options": layers(
        channel_capacity={"http.request": 2, "http.response!*": 10, re.compile("x"): 3},
        symmetric_encryption_keys=[KEY],
    ),
    "pubsub": layers(PUBSUB),
    "two prefixes": {
        **layers(),
        "other": {"BACKEND": CORE, "CONFIG": {"hosts": [HOST], "prefix": "other"}},
    },
    "one prefix on two databases": {
        **layers(),
        "other": {
            "BACKEND": CORE,
            "CONFIG": {"hosts": [f"{HOST}/1"], "prefix": "asgi-other"},
        },
    },
    "another package's": {"default": {"BACKEND": "channels.layers.BaseChannelLayer"}},
    "none": {},
}


@pytest.mark.parametrize("setting", RIGHT.values(), ids=RIGHT)
def test_right_sites(setting: dict[str, Any]) -> None:
    about = {"CHANNEL_LAYERS": setting, "CACHES": cache(f"{HOST}/2"), "DEBUG": False}
    assert found(**about) == {}
    assert found(check_deployment, **about) == {}


REFUSED = {
    "no option": (layers(capacty=5), "capacty"),
    "no host": (layers(hosts=["http://x"]), "bad host"),
    "a password in it": (layers(hosts=["redis://:s3cret@h:99999"]), "port"),
    "no backend": ({"default": {}}, "BACKEND"),
    "not imported": (layers("no.such.Layer"), "BACKEND can't be imported"),
    "no such class": (layers("channels_redis_fast.core.Redis"), "does not define"),
    "not even a dict": ({"default": CORE}, "must be a dict"),
    "all but": ([CORE], "must be a dict"),
}


@pytest.mark.parametrize(("setting", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_the_layer_refuses(setting: Any, reason: str) -> None:
    messages = found(CHANNEL_LAYERS=setting)
    assert messages.keys() == {"E001"}
    assert messages["E001"].startswith("CHANNEL_LAYERS['default']: ")
    assert reason in messages["E001"]
    assert "s3cret" not in messages["E001"]


def test_an_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise ImportError("pip install channels_redis_fast[cryptography]")

    monkeypatch.setattr("channels_redis_fast.wire.encryption_keys._imported", refuse)
    setting = layers(symmetric_encryption_keys=[KEY])
    assert "[cryptography]" in found(CHANNEL_LAYERS=setting)["E001"]


SHARED = {
    "a URL": (HOST, cache(f"{HOST}/0")),
    "by its default": (HOST, cache("redis://redis.internal")),
    "one of several": (HOST, cache(["redis://other:6379", HOST])),
    "several in a str": (HOST, cache(f"redis://other:6379,{HOST}")),
    "a database in a query": (f"{HOST}/3", cache(f"{HOST}?db=3")),
    "in an option": (f"{HOST}/3", cache(HOST, db=3)),
    "with a password": ("redis://:a@h:6379/1", cache("redis://u:b@h/1")),
    "loopback": (("localhost", 6379), cache("redis://127.0.0.1:6379")),
    "TLS": ("rediss://h:6380", cache("rediss://h:6380/0")),
    "a socket": ("unix:///run/redis.sock", cache("unix:///run/redis.sock?db=0")),
    "django-redis": (HOST, cache(HOST, "django_redis.cache.RedisCache")),
    "django-valkey": (HOST, cache("valkey://redis.internal", "django_valkey.cache.C")),
    "Sentinel": (
        {"sentinels": [("s", 26379)], "master_name": "main", "db": 1},
        cache("redis://main/1", "django_redis.cache.RedisCache"),
    ),
    "a Cluster": ({"cluster": [("a", 7000), ("b", 7000)]}, cache("redis://b:7000")),
}


@pytest.mark.parametrize(("host", "caches"), SHARED.values(), ids=SHARED)
def test_a_cache_in_the_same_database(host: Any, caches: dict[str, Any]) -> None:
    messages = found(CHANNEL_LAYERS=layers(hosts=[host]), CACHES=caches)
    assert messages.keys() == {"W001"}
    assert "CACHES['default']" in messages["W001"]


@pytest.mark.parametrize(
    "caches",
    [
        cache(f"{HOST}/1"),
        cache("redis://redis.external:6379"),
        cache("redis://redis.internal:6380"),
        {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
        cache("not a URL"),
    ],
)
def test_a_cache_elsewhere(caches: dict[str, Any]) -> None:
    assert found(CHANNEL_LAYERS=layers(), CACHES=caches) == {}


def test_a_database_that_is_free() -> None:
    layer = {"BACKEND": CORE, "CONFIG": {"hosts": [f"{HOST}/1"]}}
    caches = {**cache(HOST), "sessions": cache(f"{HOST}/2")["default"]}
    with override_settings(CHANNEL_LAYERS={**layers(), "b": layer}, CACHES=caches):
        (one,) = check_layers()
    assert "as redis://.../3;" in one.hint


def test_prefixes_that_are_proposed() -> None:
    def named(*prefixes: str) -> dict[str, Any]:
        return {
            alias: {"BACKEND": CORE, "CONFIG": {"hosts": [HOST], "prefix": prefix}}
            for alias, prefix in zip(("chat", "chat2"), prefixes, strict=True)
        }

    with override_settings(CHANNEL_LAYERS=named("asgi", "asgi2")):
        (one,) = check_layers()
    proposed = re.findall("'([^']*)'", one.hint)
    assert found(CHANNEL_LAYERS=named(*proposed)) == {}


def test_prefixes_that_overlap(caplog: pytest.LogCaptureFixture) -> None:
    config = {"hosts": [HOST], "prefix": "asgi2"}
    both = {**layers(), "other": {"BACKEND": PUBSUB, "CONFIG": config}}
    for setting in both, dict(reversed(both.items())):
        messages = found(CHANNEL_LAYERS=setting)
        assert messages.keys() == {"W002"}
        assert "'asgi' of CHANNEL_LAYERS['default']" in messages["W002"]
        assert "'asgi2' of CHANNEL_LAYERS['other']" in messages["W002"]
    assert not caplog.records  # the layers that were looked at are in use nowhere


USELESS = {
    "room chat*": "letters",
    "a!b!c": "letters",
    "!*": "letters",
    "rööm": "letters",
    "": "empty",
    "?" * 101: "100 characters",
}


@pytest.mark.parametrize(("pattern", "reason"), USELESS.items())
def test_a_pattern_that_cannot_match(pattern: str, reason: str) -> None:
    setting = layers(channel_capacity={pattern: 5, "room.*": 6})
    messages = found(CHANNEL_LAYERS=setting)
    assert messages.keys() == {"W003"}
    assert repr(pattern) in messages["W003"]
    assert reason in messages["W003"]


def test_a_pattern_that_comes_too_late() -> None:
    rules = {"first": 1, "*": 2, re.compile("x"): 3}
    messages = found(CHANNEL_LAYERS=layers(channel_capacity=rules))
    assert messages.keys() == {"W003"}
    assert "'*' comes before it" in messages["W003"]


@pytest.mark.parametrize(
    "pattern", ["*", "*!", "*!?", "?!*", "[!a]*", "x" * 100, "*" * 200, "specific.*!*"]
)
def test_a_pattern_that_may_match(pattern: str) -> None:
    assert found(CHANNEL_LAYERS=layers(channel_capacity={pattern: 5})) == {}


class Named(core.RedisChannelLayer):
    """A layer with names of its own."""

    channel_name_regex = re.compile("[a-z ]+")


def test_patterns_for_names_of_a_subclass() -> None:
    path = f"{__name__}.Named"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "Named", Named, raising=False)
        path = "channels_redis_fast.core.Named"
        setting = layers(path, channel_capacity={"room chat*": 5})
        assert found(CHANNEL_LAYERS=setting) == {}


def test_messages_that_outlast_groups() -> None:
    messages = found(CHANNEL_LAYERS=layers(expiry=100, group_expiry=60))
    assert messages.keys() == {"W004"}


# --deploy


IN_MEMORY = f"channels.layers.{InMemoryChannelLayer.__name__}"


@pytest.mark.parametrize(
    "setting",
    [
        {"default": {"BACKEND": IN_MEMORY}},
        {"default": {"BACKEND": CORE}},
        layers(hosts=None),
        layers(PUBSUB, hosts=[]),
    ],
)
def test_left_at_defaults(setting: dict[str, Any]) -> None:
    about = {"CHANNEL_LAYERS": setting}
    assert found(**about) == {}
    assert found(check_deployment, **about, DEBUG=True) == {}
    assert found(check_deployment, **about, DEBUG=False).keys() == {"W101"}


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("short", "5 bytes"),
        (b"bytes", "5 bytes"),
        ("django-insecure-" + KEY, "repositories"),
    ],
)
def test_weak_keys(key: Any, reason: str) -> None:
    setting = layers(symmetric_encryption_keys=[KEY, key])
    messages = found(check_deployment, CHANNEL_LAYERS=setting)
    assert messages.keys() == {"W102"}
    assert "symmetric_encryption_keys[1]" in messages["W102"]
    assert reason in messages["W102"]
    assert str(key) not in messages["W102"]


@pytest.mark.parametrize(
    ("host", "is_found"),
    [
        ("redis://:secret@8.8.8.8:6379", True),
        (("8.8.8.8", 6379), True),
        ({"host": "2001:4860:4860::8888"}, True),
        ("redis://[2001:4860:4860::8888]:6379", True),
        ("rediss://8.8.8.8:6379", False),
        ({"host": "8.8.8.8", "ssl": True}, False),
        ("redis://10.0.0.1:6379", False),
        ("redis://127.0.0.1", False),
        ("redis://redis.example.com", False),
        ("unix:///run/redis.sock", False),
    ],
)
def test_a_public_address(host: Any, is_found: bool) -> None:
    messages = found(check_deployment, CHANNEL_LAYERS=layers(hosts=[host]))
    assert bool(messages) is is_found
    assert "secret" not in str(messages)
    setting = layers(hosts=[host], symmetric_encryption_keys=[KEY])
    assert found(check_deployment, CHANNEL_LAYERS=setting) == {}


def test_the_app_registers_them() -> None:
    AppConfig.create("channels_redis_fast").ready()
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": CORE}}):
        assert run_checks(tags=["channels"]) == []
        (one,) = run_checks(tags=["channels"], include_deployment_checks=True)
    assert one.id == "channels_redis_fast.W101"


def test_each_id_is_on_the_page() -> None:
    text = (DOCS / "operations.md").read_text()
    for each in ("E001", "W001", "W002", "W003", "W004", "W101", "W102"):
        assert f"`channels_redis_fast.{each}`" in text
