"""Bad settings get an error that names option and value, and shows no password."""

from __future__ import annotations

from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.exceptions import InvalidSetting
from channels_redis_fast.pubsub import RedisPubSubChannelLayer
from support.layers import opened
from support.servers import free_port
from support.telling import everything_told

SECRET = "s3cret-word"
BAD_HOSTS = {
    "str": ("redis://localhost", "must be a list.*redis://localhost"),
    "str with password": (f"redis://:{SECRET}@localhost", "must be a list.*localhost"),
    "bytes": (b"redis://localhost", "must be a list"),
    "dict": ({"address": "redis://localhost"}, "must be a list"),
    "number": (6379, "must be a list.*6379"),
    "entry None": ([None], "None"),
    "entry number": ([6379], "6379"),
    "entry triple": ([("localhost", 6379, 0)], "localhost"),
    "no scheme": (["localhost:6379"], "localhost:6379"),
    "wrong scheme": (["http://localhost:6379"], "http://localhost"),
    "port text": ([("localhost", "no-port")], "no-port"),
    "port too high": ([("localhost", 65536)], "65536"),
    "port zero": ([("localhost", 0)], r"\b0\b"),
    "port in URI": ([f"redis://:{SECRET}@localhost:port"], "localhost"),
    "no host name": ([("", 6379)], "''"),
    "host number": ([(1, 6379)], r"\b1\b"),
    "argument": ([{"address": "redis://localhost", "hosst": "x"}], "hosst"),
    "no master_name": ([{"sentinels": [("localhost", 1)]}], "master_name"),
    "no sentinels": ([{"master_name": "mymaster"}], "mymaster"),
    "empty sentinels": ([{"sentinels": [], "master_name": "m"}], "sentinels is empty"),
    "empty cluster": ([{"cluster": []}], "cluster is empty"),
    "cluster str": ([{"cluster": "localhost:7000"}], "localhost:7000"),
    "second": (["redis://localhost", "localhost:6379"], "localhost:6379"),
    "password": (
        [{"host": "localhost", "port": "no-port", "password": SECRET}],
        "no-port",
    ),
    "password with @": ([f"redis://:a@{SECRET}@localhost:port"], "localhost"),
    "password with /": ([f"redis://:a/{SECRET}@localhost:6379"], "redis://"),
    "password in query": ([f"redis://localhost:port?password={SECRET}"], "localhost"),
    "address with password": (
        [{"address": f"redis://user:{SECRET}@localhost:port"}],
        "localhost",
    ),
    "sentinel password": (
        [{"master_name": "m", "sentinel_kwargs": {"password": SECRET}}],
        "sentinels and master_name",
    ),
}
BAD_SETTINGS: dict[str, tuple[str, Any, str]] = {
    "capacity negative": ("capacity", -1, "-1"),
    "capacity fraction": ("capacity", 1.5, r"1\.5"),
    "capacity text": ("capacity", "many", "many"),
    "capacity None": ("capacity", None, "None"),
    "rules list": ("channel_capacity", [("a*", 1)], r"a\*"),
    "rule negative": ("channel_capacity", {"a*": -3}, "-3"),
    "rule text": ("channel_capacity", {"a*": "many"}, "many"),
    "rule pattern": ("channel_capacity", {17: 1}, "17"),
    "history list": ("history", [("a*", (1, 2))], r"history must be a dict.*a\*"),
    "history pattern": ("history", {17: (1, 2)}, "history wants globs.*17"),
    "history number": ("history", {"a*": 100}, "history wants.*100"),
    "history short": ("history", {"a*": (100,)}, r"history wants.*\(100,\)"),
    "history zero": ("history", {"a*": (0, 2)}, "size.*0"),
    "history fraction": ("history", {"a*": (1, 2.5)}, r"ttl.*2\.5"),
    "history positions": ("history", {"a*": (1, 20, 10)}, "position_ttl.*10"),
    "expiry zero": ("expiry", 0, r"\b0\b"),
    "expiry negative": ("expiry", -5, "-5"),
    "expiry NaN": ("expiry", float("nan"), "nan"),
    "expiry infinite": ("expiry", float("inf"), "inf"),
    "expiry text": ("expiry", "soon", "soon"),
    "expiry too long": ("expiry", 1e16, "1e\\+16"),
    "expiry far too long": ("expiry", 10**17, "1000000"),
    "group_expiry too long": ("group_expiry", 2**63 - 1, "9223372036854775807"),
    "group_expiry zero": ("group_expiry", 0, r"\b0\b"),
    "group_expiry None": ("group_expiry", None, "None"),
    "prefix bytes": ("prefix", b"asgi", "b'asgi'"),
    "prefix None": ("prefix", None, "None"),
    "unique length text": ("random_prefix_length", "12", "'12'"),
    "timeout": ("command_timeout", 0, r"\b0\b"),
    "timeout too long": ("command_timeout", 10**7, "10000000"),
    "liveness": ("liveness", 0, r"\b0\b"),
    "liveness too long": ("liveness", 10**7, "10000000"),
    "confirm_sends": ("confirm_sends", "no", "'no'"),
    "confirm_sends number": ("confirm_sends", 0, r"\b0\b"),
    "prefetch zero": ("prefetch", 0, r"\b0\b"),
    "prefetch text": ("prefetch", "10", "'10'"),
    "prefetch True": ("prefetch", True, "True"),
    "message size": ("max_message_size", 0, r"\b0\b"),
    "no keys": ("symmetric_encryption_keys", [], r"\[\]|empty"),
    "no key": ("symmetric_encryption_keys", "", "''|one key"),
    "one key": ("symmetric_encryption_keys", SECRET, "list of keys"),
    "empty key": ("symmetric_encryption_keys", [SECRET, ""], r"keys\[1\] is empty"),
    "key number": ("symmetric_encryption_keys", [SECRET, 5], r"keys\[1\].*int"),
}


@pytest.mark.parametrize(("hosts", "named"), BAD_HOSTS.values(), ids=BAD_HOSTS)
def test_bad_hosts(hosts: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        RedisChannelLayer(hosts=hosts)
    assert isinstance(caught.value, InvalidSetting)
    assert SECRET not in _all_texts(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "named"), BAD_SETTINGS.values(), ids=BAD_SETTINGS
)
def test_bad_settings(option: str, value: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        RedisChannelLayer(**{option: value})
    assert option in str(caught.value)
    assert SECRET not in _all_texts(caught.value)
    # The incumbent's class, where it was another.
    assert option != "prefix" or isinstance(caught.value, AssertionError)


def test_an_unknown_format() -> None:
    with pytest.raises(KeyError, match=r"msgpakc.*msgpack"):
        RedisChannelLayer(serializer_format="msgpakc")


@pytest.mark.parametrize(
    ("option", "closest"),
    [
        ("host", "hosts"),
        ("expire", "expiry"),
        ("group_expire", "group_expiry"),
        ("channel_capacities", "channel_capacity"),
        ("symmetric_keys", "symmetric_encryption_keys"),
        ("serialiser_format", "serializer_format"),
    ],
)
def test_unknown_options(option: str, closest: str) -> None:
    with pytest.raises(TypeError, match=f"'{option}'.*'{closest}'"):
        RedisChannelLayer(**{option: 1})


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("password", "belongs into an entry of 'hosts'"),
        ("sentinels", "belongs into an entry of 'hosts'"),
        ("ssl_cert_reqs", "belongs into an entry of 'hosts'"),
        ("max_connections", "belongs into an entry of 'hosts'"),
        ("auth_password", "there are hosts, prefix, "),
    ],
)
@pytest.mark.parametrize("kind", [RedisChannelLayer, RedisPubSubChannelLayer])
def test_connection_arguments_beside_hosts(kind: Any, option: str, hint: str) -> None:
    with pytest.raises(TypeError, match=hint) as caught:
        kind(**{option: SECRET})
    assert "closest" not in str(caught.value)
    assert SECRET not in everything_told(caught.value)


@pytest.mark.parametrize(
    "where",
    [
        "redis://user:a%40{secret}@{address}",
        "redis://user:a@{secret}@{address}",
        "redis://{address}?password={secret}&username=user",
        "redis://{address}/0?username=user&password={secret}",
    ],
)
async def test_passwords_are_in_no_text(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = where.format(secret=SECRET, address=f"127.0.0.1:{free_port()}")
    async with opened(url, symmetric_encryption_keys=[SECRET]) as layer:
        with pytest.raises(errors.ConnectionError) as caught:
            await layer.send("worker", {"type": "t"})
        assert SECRET not in _all_texts(caught.value)
        assert SECRET not in f"{layer} {layer!r}"
    assert caplog.records
    assert SECRET not in caplog.text


def _all_texts(error: BaseException | None) -> str:
    """The texts of an error and of those that led to it, as a traceback shows them."""
    texts = []
    while error is not None:
        texts.append(f"{error!r} {error}")
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)
    return "\n".join(texts)


@pytest.mark.parametrize("prefix", ["a{b", "a}", "{}", "{a}{b}"])
def test_braces_in_a_prefix_that_separate_the_keys_of_a_group(prefix: str) -> None:
    rules = {"room-*": (1, 2)}
    with pytest.raises(InvalidSetting, match="braces"):
        RedisChannelLayer(prefix=prefix, history=rules)
    RedisChannelLayer(prefix=prefix)
    RedisChannelLayer(prefix="{all}", history=rules)
