"""Groups with a history: joining from a position, and what is kept."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgpack
import pytest

from channels_redis_fast.exceptions import InvalidMessage
from channels_redis_fast.types import BEGINNING, POSITION, position_of
from support.following import GROUP, RULES, numbers, place, plain, send
from support.layers import FORMATS, nothing, opened, soon
from support.servers import Server
from support.syncing import KINDS

ALL_FORMATS: dict[str, dict[str, Any]] = {
    **FORMATS,
    "json, encrypted": {**FORMATS["json"], **FORMATS["fernet"]},
}
NESTED = {"type": "said", "list": [1, {"a": None}], "text": "žluťoučký"}

both = pytest.mark.parametrize("kind", KINDS)


@both
@pytest.mark.parametrize("format", ALL_FORMATS)
async def test_a_channel_that_joins_late_gets_what_it_missed(
    valkey: Server, kind: str, format: str
) -> None:
    options = ALL_FORMATS[format]
    async with (
        opened(valkey.url, kind=kind, history=RULES, **options) as sender,
        opened(valkey.url, kind=kind, history=RULES, **options) as layer,
    ):
        since = await layer.group_position(GROUP)
        sent = [{"type": "said"}, NESTED, {"type": "said", "n": 3}]
        for message in sent[:2]:
            await sender.group_send(GROUP, message)
        names = [await layer.new_channel() for _ in range(2)]
        for name in names:
            recovery = await layer.group_join(GROUP, name, since)
            assert (recovery.recovered, recovery.replayed) == (True, 2)
            assert place(recovery.position)[1] == place(since)[1] + 2
        await sender.group_send(GROUP, sent[2])
        for name in names:
            got = [await soon(layer, name) for _ in sent]
            got[1]["list"].append("mine")  # is nobody else's
            got[1]["list"].pop()
            assert [plain(message) for message in got] == sent
            places = [place(position_of(message) or "") for message in got]
            epoch, offset = place(since)
            assert places == [(epoch, offset + n) for n in (1, 2, 3)]


@both
async def test_a_receivers_changes_reach_nobody_else(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        since = await layer.group_position(GROUP)
        first, second = [await layer.new_channel() for _ in range(2)]
        await layer.group_join(GROUP, first)
        await layer.group_send(GROUP, {"type": "said", "list": [1]})
        (await soon(layer, first))["list"].append(2)
        await layer.group_join(GROUP, second, since)
        assert (await soon(layer, second))["list"] == [1]


@both
async def test_the_window_slides(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        since = await layer.group_position(GROUP)
        await send(layer, *range(10))
        kept = await layer.group_history(GROUP, since)
        assert ([m["n"] for m in kept.messages], kept.recovered) == ([*range(10)], True)
        await send(layer, 10)
        name = await layer.new_channel()
        recovery = await layer.group_join(GROUP, name, since)
        assert (recovery.recovered, recovery.replayed) == (False, 0)
        assert await nothing(layer, name)
        page = await layer.group_history(GROUP, since)
        assert (page.messages, page.recovered) == ([], False)
        recovery = await layer.group_join(GROUP, name, BEGINNING)
        assert (recovery.recovered, recovery.replayed) == (True, 10)
        assert await numbers(layer, name, 10) == [*range(1, 11)]


@both
async def test_the_last_value_on_join(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        for n in range(5):
            await layer.group_send("price-x", {"type": "price", "n": n})
        for _ in range(2):
            name = await layer.new_channel()
            recovery = await layer.group_join("price-x", name, BEGINNING)
            assert (recovery.recovered, recovery.replayed) == (True, 1)
            assert await numbers(layer, name, 1) == [4]


@both
async def test_pages_of_a_history(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        assert (await layer.group_history(GROUP)).messages == []
        await send(layer, *range(5))
        seen, since = [], None
        for _ in range(3):
            page = await layer.group_history(GROUP, since, limit=2)
            seen += [message["n"] for message in page.messages]
            since = page.position
            assert page.recovered
        assert seen == [*range(5)]
        assert since == await layer.group_position(GROUP)
        newest = await layer.group_history(GROUP, limit=2, reverse=True)
        assert [message["n"] for message in newest.messages] == [4, 3]


@both
async def test_who_left_gets_no_more(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        name, other = await layer.new_channel(), await layer.new_channel()
        await layer.group_join(GROUP, name)
        await layer.group_join(GROUP, other)
        await layer.group_discard(GROUP, name)
        await send(layer, 1)
        assert await numbers(layer, other, 1) == [1]
        assert await nothing(layer, name)


@both
async def test_members_that_did_not_join_by_a_position_get_all_that_comes(
    valkey: Server, kind: str
) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        member, follower = await layer.new_channel(), await layer.new_channel()
        await layer.group_add(GROUP, member)
        await send(layer, 1)
        await layer.group_join(GROUP, follower)
        await send(layer, 2)
        assert await numbers(layer, member, 2) == [1, 2]
        assert await numbers(layer, follower, 1) == [2]


@both
async def test_many_messages_at_once(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        member = await layer.new_channel()
        await layer.group_add("other", member)
        since = await layer.group_position(GROUP)
        said = [{"type": "said", "n": n} for n in range(3)]
        pairs = [(GROUP, said[0]), ("other", said[1]), (GROUP, said[2])]
        bad = (GROUP, {"type": object()})
        *outcomes, wrong = await layer.group_send_many([*pairs, bad])
        assert outcomes == [None] * 3
        assert isinstance(wrong, InvalidMessage)
        page = await layer.group_history(GROUP, since)
        assert [message["n"] for message in page.messages] == [0, 2]
        assert await soon(layer, member) == said[1]


@both
async def test_without_confirmation(valkey: Server, kind: str) -> None:
    async with opened(
        valkey.url, kind=kind, history=RULES, confirm_sends=False
    ) as layer:
        name = await layer.new_channel()
        await layer.group_join(GROUP, name)
        await send(layer, *range(5))
        assert await numbers(layer, name, 5) == [*range(5)]


@both
async def test_a_message_that_is_sent_on_has_a_position_of_its_own(
    valkey: Server, kind: str
) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        name, plain_one = await layer.new_channel(), await layer.new_channel()
        await layer.group_join(GROUP, name)
        await layer.group_join("room-2", name)
        await send(layer, 1)
        message = await soon(layer, name)
        for group in (GROUP, "room-2"):
            await layer.group_send(group, message)
            again = await soon(layer, name)
            assert position_of(again) not in (None, position_of(message))
            assert plain(again) == plain(message)
        await layer.send(plain_one, message)
        await layer.send(name, message)
        assert await soon(layer, plain_one) == plain(message)
        assert await soon(layer, name) == plain(message)


@both
async def test_callers_that_block(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        name = await layer.new_channel()

        def work() -> Any:
            since = layer.sync.group_position(GROUP)
            layer.sync.group_send(GROUP, {"type": "said", "n": 1})
            recovery = layer.sync.group_join(GROUP, name, since)
            page = layer.sync.group_history(GROUP, since, limit=1)
            message = layer.sync.receive(name, timeout=5)
            layer.sync.group_forget(GROUP)
            return recovery, page, message

        recovery, page, message = await asyncio.to_thread(work)
        assert recovery.recovered
        assert page.messages == [message]


@pytest.mark.parametrize("format", ["msgpack", "json"])
async def test_a_message_is_a_plain_map_for_others(valkey: Server, format: str) -> None:
    """Its last entry is the position; nothing else is new."""
    client = valkey.client()
    listener = client.pubsub()
    listener.subscribe("asgi__group__room-1")
    assert listener.get_message(timeout=5)
    async with opened(
        valkey.url, kind="pubsub", history=RULES, serializer_format=format
    ) as layer:
        await layer.group_send(GROUP, NESTED)
        position = (await layer.group_position(GROUP)).partition("@")[2]
    pushed = listener.get_message(timeout=5)
    listener.close()
    read = {"msgpack": msgpack.unpackb, "json": json.loads}[format]
    assert list(read(pushed["data"]).items())[-1] == (POSITION, position)
    assert plain(read(pushed["data"])) == NESTED


@both
async def test_what_is_kept_ends(valkey: Server, kind: str) -> None:
    rules = {"room-*": (10, 40, 90)}
    async with opened(valkey.url, kind=kind, history=rules, prefix="p") as layer:
        await send(layer, 1)
    client = valkey.client()
    name = {"core": "p:group:room-1", "pubsub": "p__group__room-1"}[kind]
    assert client.ttl(f"p:history:{{{name}}}") in (39, 40)
    assert client.ttl(f"p:position:{{{name}}}") in (89, 90)
    assert len(client.keys()) == 2
