"""Groups with a history: not for all, listened to, cleared, left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channels_redis_fast.types import BEGINNING, position_of
from support.following import GROUP, HISTORY, Follower, append, insist, place, send
from support.layers import nothing, opened, soon
from support.polling import eventually
from support.servers import Server
from support.syncing import KINDS

both = pytest.mark.parametrize("kind", KINDS)


@both
@pytest.mark.parametrize("encrypted", [False, True])
async def test_who_excludes_itself_need_not_ask_for_what_it_sent(
    valkey: Server, kind: str, encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels_redis_fast.runtime.replays._PATIENCE", 1e9)
    keys = ["k" * 32] if encrypted else None
    options: dict[str, Any] = {"history": HISTORY, "symmetric_encryption_keys": keys}
    async with (
        opened(valkey.url, kind=kind, **options) as layer,
        opened(valkey.url, kind=kind, **options) as other,
    ):
        name = await layer.new_channel()
        await layer.group_join(GROUP, name)
        client = valkey.client()
        client.config_resetstat()
        await layer.group_send(GROUP, {"type": "said", "n": 1}, exclude=name)
        await send(other, 2)
        assert (await soon(layer, name))["n"] == 2
        assert "cmdstat_lrange" not in client.info("commandstats")


@both
@pytest.mark.parametrize("encrypted", [False, True])
async def test_the_excluded_miss_a_message_and_nothing_else(
    valkey: Server, kind: str, encrypted: bool
) -> None:
    keys = ["k" * 32] if encrypted else None
    options: dict[str, Any] = {"history": HISTORY, "symmetric_encryption_keys": keys}
    async with (
        opened(valkey.url, kind=kind, **options) as layer,
        opened(valkey.url, kind=kind, **options) as other,
    ):
        since = await layer.group_position(GROUP)
        names = [await one.new_channel() for one in (layer, layer, other)]
        for name, one in zip(names, (layer, layer, other), strict=True):
            await one.group_join(GROUP, name)
        await layer.group_send(GROUP, {"type": "said", "n": [1]}, exclude=names[0])
        await layer.group_send(GROUP, {"type": "said", "n": [2]}, exclude=names[1:])
        await layer.group_send(GROUP, {"type": "said", "n": [3]})
        wanted = zip(
            names, (layer, layer, other), ((2, 3), (1, 3), (1, 3)), strict=True
        )
        for name, one, numbers in wanted:
            got = [await soon(one, name) for _ in numbers]
            assert [message["n"] for message in got] == [[n] for n in numbers]
            assert {*got[0]} == {"type", "n", "__asgi_position__"}
        page = await layer.group_history(GROUP, since)
        assert [message["n"] for message in page.messages] == [[1], [2], [3]]
        assert {*page.messages[0]} == {"type", "n", "__asgi_position__"}


@both
async def test_the_excluded_miss_it_when_it_is_replayed(
    valkey: Server, kind: str
) -> None:
    async with opened(valkey.url, kind=kind, history=HISTORY) as layer:
        follower = await Follower.join(layer)
        name = await layer.new_channel()
        await layer.group_join(GROUP, name)
        await append(layer, 1, exclude=[name])  # and never sent
        await send(layer, 2)
        await eventually(lambda: follower.numbers == [1, 2], "both")
        assert (await soon(layer, name))["n"] == 2
        await follower.end()


@both
async def test_listening_from_a_position_on(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=HISTORY) as layer:
        await send(layer, 1, 2)
        async with layer.listen(GROUP, since=BEGINNING) as messages:
            assert messages.recovery.recovered
            seen = [await anext(messages) for _ in range(2)]
            assert [message["n"] for message in seen] == [1, 2]
            since = position_of(seen[-1])
        await send(layer, 3)
        async with layer.listen(GROUP, since=since) as messages:
            assert (await anext(messages))["n"] == 3
        async with layer.listen(GROUP, since=None) as messages:
            assert messages.recovery.replayed == 0
            await send(layer, 4)
            assert (await anext(messages))["n"] == 4
        async with layer.listen(GROUP) as messages:
            assert messages.recovery is None
        with pytest.raises(ValueError, match="one group"):
            layer.listen(GROUP, "room-2", since=None)
        assert not layer._replays._groups


@both
async def test_a_cleared_group_is_followed_no_more(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=HISTORY) as layer:
        name = await layer.new_channel()
        await layer.group_join(GROUP, name)
        await layer.group_clear(GROUP)
        await eventually(lambda: not layer._replays._groups, "it to be noted")
        await send(layer, 1)
        assert await nothing(layer, name)


@both
async def test_who_left_all_groups_follows_none(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=HISTORY) as layer:
        name = await layer.new_channel()
        for group in (GROUP, "room-2"):
            await layer.group_join(group, name)
        assert await layer.group_discard_all(name) == 2
        assert not layer._replays._groups


@both
async def test_channels_that_end_follow_no_more(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=HISTORY, expiry=0.2) as layer:
        name = await layer.new_channel()
        await layer.group_join(GROUP, name)
        del name
        await eventually(lambda: not layer._replays._groups, "it to end")


@both
async def test_a_channel_that_ends_while_it_joins_follows_nothing(
    valkey: Server, kind: str
) -> None:
    async with opened(valkey.url, kind=kind, history=HISTORY) as layer:
        name = await layer.new_channel()
        joining = asyncio.create_task(layer.group_join(GROUP, name))
        await eventually(lambda: layer._replays._groups, "the join to begin")
        layer._mailboxes.end(name)
        await asyncio.wait([joining])
        assert not layer._replays._groups
        await eventually(lambda: not layer._replays._rest, "the end of looking")


@both
async def test_each_group_of_many_is_asked_for(
    valkey: Server, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels_redis_fast.runtime.replays._PORTION", 2)
    async with opened(valkey.url, kind=kind, history=HISTORY) as layer:
        name = await layer.new_channel()
        for n in range(5):
            await layer.group_join(f"room-{n}", name)
        groups = layer._replays._groups.values()
        for one in groups:
            one.asked_at -= 60
        long_ago = max(one.asked_at for one in groups)
        for _ in range(3):
            layer._replays.tick()
        assert min(one.asked_at for one in groups) > long_ago


@both
async def test_what_a_message_reached(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=HISTORY) as layer:
        name, other = await layer.new_channel(), await layer.new_channel()
        await layer.group_join(GROUP, name)
        await layer.group_join(GROUP, other)
        members = {"core": 2, "pubsub": None}[kind]
        assert await layer.group_send(GROUP, {"type": "said"}) == (members, 1, 0)
        if kind == "core":
            result = await layer.group_send(GROUP, {"type": "x"}, exclude=[name, other])
            assert result == (0, 0, 0)
        assert place(await insist(lambda: layer.group_position(GROUP)))


@both
async def test_who_joins_amid_messages_gets_each_once(
    valkey: Server, kind: str
) -> None:
    async with (
        opened(valkey.url, kind=kind, history=HISTORY) as layer,
        opened(valkey.url, kind=kind, history=HISTORY) as sender,
    ):
        sent = asyncio.create_task(send(sender, *range(300)))
        followers = [await Follower.join(layer) for _ in range(40)]
        await sent
        last = place(await layer.group_position(GROUP))
        for follower in followers:
            await eventually(lambda one=follower: one.reached(last), "all")
            assert not follower.gaps
            await follower.end()


async def test_what_comes_before_the_answer_comes_once(valkey: Server) -> None:
    """A message in the same breath as the confirmation of the subscription."""
    async with opened(valkey.url, kind="pubsub", history=HISTORY) as layer:
        name, since = await layer.new_channel(), await layer.group_position(GROUP)
        add = layer.group_add

        async def add_amid_messages(group: str, channel: str) -> None:
            await add(group, channel)
            await send(layer, 1)
            await asyncio.sleep(0.05)  # until it is heard, before Redis is asked

        layer.group_add = add_amid_messages
        await layer.group_join(GROUP, name, since)
        await send(layer, 2)
        assert [(await soon(layer, name))["n"] for _ in range(2)] == [1, 2]
        assert await nothing(layer, name)
