"""Groups with a history: what can't be recovered, and who doesn't read."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from redis import exceptions as errors

from channels_redis_fast.exceptions import InvalidMessage
from channels_redis_fast.types import BEGINNING
from support.behaviours import until_it_works
from support.following import GROUP, RULES, Follower, numbers, place, send
from support.layers import nothing, opened, soon
from support.polling import eventually
from support.proxy import Proxy
from support.servers import Server
from support.syncing import KINDS

NO_POSITIONS = [
    *("", "@", "room-1@", "nonsense", "room-2@1795867294365-000000000001"),
    *("room-1@9999999999999-999999999999", "room-1@0000000000000-000000000000"),
    *("room-1@-1", "room-1@1795867294365-00000000001", "room-1@" + "9" * 100_000),
    *("room-1@1795867294365-00000000000\u0661", "\ud800", "@room-1", "room-1@" * 9),
] * 2

both = pytest.mark.parametrize("kind", KINDS)


@both
async def test_what_is_no_position_recovers_nothing(
    valkey: Server, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        await send(layer, 1)
        name = await layer.new_channel()
        for since in NO_POSITIONS:  # twice: also when this process knows the group
            recovery = await layer.group_join(GROUP, name, since)
            assert (recovery.recovered, recovery.replayed) == (False, 0), since
            assert recovery.position == await layer.group_position(GROUP)
            page = await layer.group_history(GROUP, since)
            assert (page.messages, page.recovered) == ([], False)
        await send(layer, 2)
        assert await numbers(layer, name, 1) == [2]
    assert not caplog.records


@both
async def test_a_position_in_the_future_recovers_nothing(
    valkey: Server, kind: str
) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        epoch, offset = place(await layer.group_position(GROUP))
        name = await layer.new_channel()
        since = f"{GROUP}@{epoch:013d}-{offset + 1:012d}"
        assert not (await layer.group_join(GROUP, name, since)).recovered


@both
async def test_what_is_over_is_replayed_by_no_process(
    valkey: Server, kind: str
) -> None:
    async with opened(valkey.url, kind=kind, history={"room-*": (10, 1)}) as layer:
        follower = await Follower.join(layer)
        await send(layer, 1)
        await eventually(lambda: follower.numbers, "the message")

        async def replayed() -> int:
            name = await layer.new_channel()
            recovery = await layer.group_join(GROUP, name, BEGINNING)
            assert recovery.recovered
            return recovery.replayed

        assert await replayed() == 1
        for _ in range(200):
            if not await replayed():
                break
            await asyncio.sleep(0.05)
        assert await replayed() == 0
        await send(layer, 2)
        await eventually(lambda: follower.numbers == [1, 2], "the next")
        assert await replayed() == 1
        assert not follower.gaps
        await follower.end()


@both
async def test_wrong_calls_are_told(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        name = await layer.new_channel()
        with pytest.raises(ValueError, match="`history` matches 'other'"):
            await layer.group_join("other", name)
        for since in (1, b"x", [""]):
            with pytest.raises(TypeError, match="since must be a position"):
                await layer.group_join(GROUP, name, since)
        with pytest.raises(TypeError):
            await layer.group_join("no name", name)
        with pytest.raises((TypeError, RuntimeError), match="of this process"):
            await layer.group_join(GROUP, str(name)[:-4] + "beef")
        with pytest.raises(ValueError, match="limit"):
            await layer.group_history(GROUP, limit=0)
        with pytest.raises(InvalidMessage):
            await layer.group_send(GROUP, {"type": object()})
    async with opened(valkey.url, kind=kind) as layer:
        with pytest.raises(ValueError, match="`history`"):
            await layer.group_position(GROUP)


@both
async def test_a_forgotten_history_is_a_gap(valkey: Server, kind: str) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        name = await layer.new_channel()
        await layer.group_join(GROUP, name)
        await send(layer, 1)
        assert await numbers(layer, name, 1) == [1]
        since = await layer.group_position(GROUP)
        await layer.group_forget(GROUP)
        assert (await layer.group_history(GROUP)).messages == []
        await send(layer, 2)
        gap = await soon(layer, name)
        assert (gap["type"], gap["group"]) == ("group.gap", GROUP)
        assert place(gap["position"]) > place(since)
        assert await numbers(layer, name, 1) == [2]
        late = await layer.new_channel()
        assert not (await layer.group_join(GROUP, late, since)).recovered


@both
async def test_an_answer_that_comes_after_a_flush_reaches_nobody(
    valkey: Server, kind: str
) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        name = await layer.new_channel()
        epoch, _ = place((await layer.group_join(GROUP, name)).position)
        followers = layer._replays._groups[GROUP]
        question = followers.question()
        await layer.flush()
        assert not layer._replays.follows(GROUP)
        followers.fill(question, (epoch + 1, 0), (), None)
        assert await nothing(layer, name)


@both
async def test_a_full_mailbox_gets_the_rest_when_it_is_read(
    valkey: Server, kind: str
) -> None:
    rules = {"room-*": (50, 300)}
    async with opened(valkey.url, kind=kind, history=rules, capacity=5) as layer:
        name, other = await layer.new_channel(), await Follower.join(layer)
        await layer.group_join(GROUP, name)
        for n in range(30):
            await send(layer, n)
            await eventually(lambda n=n: n in other.numbers, "the message")
        assert await numbers(layer, name, 30) == [*range(30)]
        await other.end()


@both
async def test_a_long_replay_needs_no_long_mailbox(valkey: Server, kind: str) -> None:
    rules = {"room-*": (50, 300)}
    async with opened(valkey.url, kind=kind, history=rules, capacity=5) as layer:
        await send(layer, *range(20))
        name = await layer.new_channel()
        recovery = await layer.group_join(GROUP, name, BEGINNING)
        assert recovery.replayed == 20
        assert await numbers(layer, name, 20) == [*range(20)]


@both
async def test_who_reads_too_late_is_told_of_a_gap(valkey: Server, kind: str) -> None:
    rules = {"room-*": (8, 300)}
    async with opened(valkey.url, kind=kind, history=rules, capacity=5) as layer:
        name, other = await layer.new_channel(), await Follower.join(layer)
        await layer.group_join(GROUP, name)
        for n in range(30):
            await send(layer, n)
            await eventually(lambda n=n: n in other.numbers, "the message")
        await other.end()
        assert await numbers(layer, name, 5) == [0, 1, 2, 3, 4]
        assert (await soon(layer, name))["type"] == "group.gap"
        rest = await numbers(layer, name, 8)
        assert rest == [*range(22, 30)]


@both
@pytest.mark.parametrize("lost", ["position", "history", "both", "all"])
async def test_lost_keys_are_a_gap(valkey: Server, kind: str, lost: str) -> None:
    async with opened(valkey.url, kind=kind, history=RULES) as layer:
        follower = await Follower.join(layer)
        await send(layer, 1, 2)
        since = await layer.group_position(GROUP)
        await eventually(lambda: follower.reached(place(since)), "both")
        client = valkey.client()
        kinds = {"both": "[ph]*", "all": "*"}.get(lost, lost)
        if kind == "core" and lost == "all":
            kinds = "[ph]*"  # else there are no members any more
        for key in client.scan_iter(f"asgi:{kinds}:{{*"):
            client.delete(key)
        late = await layer.new_channel()
        recovery = await layer.group_join(GROUP, late, since)
        await send(layer, 3)
        await eventually(lambda: 3 in follower.numbers, "the message")
        is_same = lost == "history"  # offsets go on, and nobody missed a message
        assert len(follower.gaps) == (0 if is_same else 1)
        assert recovery.recovered  # this process has all of it
        await follower.end()
        async with opened(valkey.url, kind=kind, history=RULES) as other:
            name = await other.new_channel()
            assert not (await other.group_join(GROUP, name, since)).recovered or is_same


@both
async def test_an_older_message_is_no_error(valkey: Server, kind: str) -> None:
    """A process without the option sends to a group whose members follow it."""
    async with (
        opened(valkey.url, kind=kind, history=RULES) as layer,
        opened(valkey.url, kind=kind) as old,
    ):
        name = await layer.new_channel()
        await layer.group_join(GROUP, name)
        await old.group_send(GROUP, {"type": "said", "n": 1})
        await send(layer, 2)
        assert await numbers(layer, name, 2) == [1, 2]


@both
async def test_joining_without_a_connection(valkey: Server, kind: str) -> None:
    with Proxy(valkey) as proxy:
        async with opened(proxy.url, kind=kind, history=RULES) as layer:
            name = await layer.new_channel()
            since = await layer.group_position(GROUP)
            proxy.refuse()
            proxy.cut()
            with pytest.raises(errors.ConnectionError):
                await layer.group_join(GROUP, name, BEGINNING)
            proxy.accept()
            await until_it_works(layer)
            # Pub/Sub's subscriber has a connection of its own, which may be later.
            while True:
                with contextlib.suppress(errors.ConnectionError):
                    await layer.group_join(GROUP, name, since)
                    break
            await send(layer, 1)
            assert await numbers(layer, name, 1) == [1]
