"""msgpack: keys that no receiver could read are refused when they are sent."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels_redis_fast.exceptions import InvalidMessage
from channels_redis_fast.serializers import MsgPackSerializer, registry
from channels_redis_fast.wire import _envelope
from support.layers import opened, soon
from support.pubsubs import published
from support.servers import Server
from support.syncing import KINDS

BAD: dict[str, tuple[dict[Any, Any], str]] = {
    "top": ({1: 2}, r"message has the key 1: keys must be str"),
    "nested": ({"votes": {1: 2}}, r"message\['votes'\] has the key 1: keys must be"),
    "None": ({"p": {None: 1}}, r"message\['p'\] has the key None"),
    "True": ({"p": {True: 1}}, r"message\['p'\] has the key True"),
    "float": ({"p": {1.5: 1}}, r"message\['p'\] has the key 1\.5"),
    "in a list": (
        {"p": [0, {"q": {(1, 2): 3}}]},
        r"\['p'\]\[1\]\['q'\] has the key \(",
    ),
    "in a tuple": ({"p": ({}, {2: 3})}, r"message\['p'\]\[1\] has the key 2"),
    "second": ({"a": "b", "p": {"q": 1, 3: 1}}, r"message\['p'\] has the key 3"),
    "behind a large map": (
        {"a": dict.fromkeys(map(str, range(70_000))), 4: 1},
        "key 4",
    ),
    "in a large list": ({"a": [*range(70_000), {5: 1}]}, r"\['a'\]\[70000\] has the"),
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=40) | st.binary(max_size=40) | st.integers() | st.none(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@pytest.mark.parametrize(("bad", "said"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("kind", KINDS)
async def test_refused(
    valkey: Server, kind: str, bad: dict[str, Any], said: str
) -> None:
    async with (opened if kind == "core" else published)(valkey.url) as layer:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        for call in (
            lambda: layer.send(name, bad),
            lambda: layer.send("worker", bad),
            lambda: layer.group_send("room", bad),
            lambda: layer.group_send("nobody", bad),
            lambda: asyncio.to_thread(layer.sync.send, "worker", bad),
            lambda: asyncio.to_thread(layer.sync.group_send, "room", bad),
        ):
            with pytest.raises(InvalidMessage, match=said):
                await call()
        good = {"n": 1}
        outcomes = await layer.send_many([(name, bad), (name, good)])
        outcomes += await layer.group_send_many([("room", bad), ("room", good)])
        assert [type(one) for one in outcomes] == [InvalidMessage, type(None)] * 2
        assert [await soon(layer, name) for _ in range(2)] == [good] * 2
        assert layer.counters == {}


class OwnKeys(MsgPackSerializer):
    """Reads what msgpack's default refuses."""

    @staticmethod
    def from_bytes(message: bytes, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        return msgpack.unpackb(message, strict_map_key=False)


class OwnPrefix(MsgPackSerializer):
    """Changes nothing about keys."""


async def test_registered_serialisers(valkey: Server) -> None:
    registry.register_serializer("own-keys", OwnKeys)
    registry.register_serializer("own-prefix", OwnPrefix)
    async with opened(valkey.url, serializer_format="own-keys") as layer:
        await layer.send("worker", {"p": {1: 2}})
        assert await soon(layer, "worker") == {"p": {1: 2}}
    async with opened(valkey.url, serializer_format="own-prefix") as layer:
        with pytest.raises(InvalidMessage, match=r"message\['p'\] has the key 1"):
            await layer.send("worker", {"p": {1: 2}})
        await layer.send("worker", {"p": {"1": 2}})
        assert await soon(layer, "worker") == {"p": {"1": 2}}


async def test_json_has_its_own_rule(valkey: Server) -> None:
    """As with channels_redis: they become str."""
    async with opened(valkey.url, serializer_format="json") as layer:
        await layer.send("worker", {"p": {1: 2, False: 3, None: 4}})
        assert await soon(layer, "worker") == {"p": {"1": 2, "false": 3, "null": 4}}


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=40), VALUES, max_size=4))
def test_refused_is_what_can_t_be_read(message: dict[str, Any]) -> None:
    packed: Any
    try:
        packed = msgpack.packb(message)
        msgpack.unpackb(packed)
    except (ValueError, OverflowError):
        packed = None
    if packed is None:
        with pytest.raises(InvalidMessage):
            _envelope.pack(message)
    else:
        assert _envelope.pack(message) == packed


async def test_a_log_line_says_where_an_unreadable_message_was(
    valkey: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(valkey.url) as layer:
        await layer.send("worker", {})
        valkey.client().zadd("asgiworker", {b"no message": 1.0})
        assert await soon(layer, "worker") == {}
        assert "unreadable: 1 messages (on b'asgiworker'" in caplog.text
