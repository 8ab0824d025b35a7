"""`layer.listen`: messages of groups on a channel of their own, and nothing remains."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.exceptions import InvalidName
from channels_redis_fast.runtime import engine
from support.layers import end, opened
from support.polling import eventually
from support.pubsubs import subscribed
from support.servers import Server, kept
from support.syncing import KINDS


@pytest.fixture(params=KINDS)
async def layer(
    request: pytest.FixtureRequest, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Any]:
    monkeypatch.setattr(engine, "_LONGEST_TICK", 0.05)  # what is left over goes then
    async with opened(valkey.url, kind=request.param) as found:
        yield found


def remains(layer: Any, server: Server) -> list[Any]:
    """What there is of channels, memberships and subscriptions."""
    here = layer._mailboxes.names()
    return [*here, *kept(server.client()), *subscribed(server)]


def waits(layer: Any) -> bool:
    """Whether somebody waits on a channel that joined."""
    return any(box.waiters for box in list(layer._mailboxes._boxes.values()))


async def nothing_remains(layer: Any, server: Server) -> None:
    await eventually(lambda: not remains(layer, server), "all to be gone")


async def stream(layer: Any, *groups: str) -> AsyncIterator[Any]:
    """As a view does it."""
    async with layer.listen(*groups) as messages:
        async for message in messages:
            yield message


async def test_messages_of_all_its_groups(layer: Any, valkey: Server) -> None:
    async with layer.listen("room", "news") as messages:
        for n in range(3):
            await layer.group_send("room" if n % 2 else "news", {"n": n})
        assert [(await anext(messages))["n"] for _ in range(3)] == [0, 1, 2]
        await layer.group_send("other", {"n": 3})
        await layer.group_send("room", {"n": 4})
        async for message in messages:
            assert message == {"n": 4}
            break
    assert not layer._mailboxes.names()
    await nothing_remains(layer, valkey)
    assert layer.counters == {}


async def test_several_of_one_group_hear_it_each(layer: Any) -> None:
    async with layer.listen("room") as one, layer.listen("room") as other:
        await layer.group_send("room", {"n": [1]})
        first, second = await anext(one), await anext(other)
        assert first == second == {"n": [1]}
        assert first["n"] is not second["n"]


async def test_the_end_ends_iterating_elsewhere(layer: Any) -> None:
    """A task that waits for the next message comes to the end of its loop."""

    read_so_far: list[Any] = []

    async def read(messages: Any) -> None:
        async for message in messages:
            read_so_far.append(message)

    async with layer.listen("room") as messages:
        reading = asyncio.create_task(read(messages))
        await layer.group_send("room", {"n": 1})
        await eventually(lambda: read_so_far, "the message")
        await eventually(lambda: waits(layer), "the next wait")
    await asyncio.wait_for(reading, 10)
    assert read_so_far == [{"n": 1}]
    await read(messages)
    assert len(read_so_far) == 1


async def test_cancelled_it_loses_no_message(layer: Any) -> None:
    async with layer.listen("room") as messages:
        for turns in range(6):
            receiving = asyncio.create_task(anext(messages))
            await asyncio.sleep(0.001 * (turns % 3))
            sending = asyncio.create_task(layer.group_send("room", {"n": turns}))
            if turns % 2:
                await sending
            await end(receiving)
            await sending
            got = None if receiving.cancelled() else receiving.result()
            assert (got or await anext(messages)) == {"n": turns}


@pytest.mark.parametrize("count", [50, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_aborted_at_any_moment(layer: Any, valkey: Server, count: int) -> None:
    """As many as in a crowd of browsers that come and go."""
    if asyncio.get_running_loop().get_debug():  # it takes several times as long
        count = min(count, 1000)

    async def view(number: int) -> None:
        async for _ in stream(layer, "room", f"room-{number % 7}"):
            pass

    for start in range(0, count, 50):
        views = [asyncio.create_task(view(number)) for number in range(50)]
        for turn, one in enumerate(views):
            one.cancel()
            await asyncio.sleep(0 if turn % 25 else 0.001 * (start // 50 % 5))
        await asyncio.gather(*views, return_exceptions=True)
        assert not layer._mailboxes.names()
    await nothing_remains(layer, valkey)
    await eventually(lambda: len(asyncio.all_tasks()) == 1, "the tasks to end")
    assert len(layer._mailboxes._lifetimes._ending) == 0


async def test_closed_and_collected_generators(layer: Any, valkey: Server) -> None:
    for how in ("aclose", "collected", "never begun"):
        messages: Any = stream(layer, "room")
        if how != "never begun":
            receiving = asyncio.ensure_future(anext(messages))
            await eventually(lambda: waits(layer), "the channel")
            await layer.group_send("room", {"n": 1})
            assert await receiving == {"n": 1}
            del receiving
        if how == "aclose":
            await messages.aclose()
        del messages
        gc.collect()
        await nothing_remains(layer, valkey)


async def test_an_error_in_the_block_comes_out(layer: Any, valkey: Server) -> None:
    with pytest.raises(KeyError):
        async with layer.listen("room"):
            raise KeyError
    await nothing_remains(layer, valkey)


@pytest.mark.parametrize("kind", KINDS)
async def test_redis_goes_meanwhile(
    kind: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the block raises nothing of it; it leaves when Redis is back."""
    monkeypatch.setattr(engine, "_LONGEST_TICK", 0.05)
    async with opened(server.url, kind=kind) as layer:
        async with layer.listen("room"):
            server.client().save()
            server.kill()
        assert not layer._mailboxes.names()
        with pytest.raises(errors.ConnectionError):
            async with layer.listen("room"):
                pass
        assert not layer._mailboxes.names()
        server.start()
        await nothing_remains(layer, server)


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed pools"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_ends(kind: str, valkey: Server, closed: bool) -> None:
    """With generators that nobody closed: nothing is complained of, nothing remains.

    Nor does anything begin anew for their sake.
    """
    layer = KINDS[kind](hosts=[valkey.url])
    kept = []

    async def main() -> None:
        kept.append(stream(layer, "room"))
        reading = asyncio.ensure_future(anext(kept[0]))
        await eventually(lambda: waits(layer), "the channel")
        await layer.group_send("room", {"n": 1})
        await reading
        if closed:
            await layer.close_pools()

    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        asyncio.run(main(), debug=True)
    assert not complaints
    assert remains(layer, valkey) == (
        [b"asgi:group:room"] if closed and kind == "core" else []
    )


@pytest.mark.parametrize(
    ("groups", "error", "text"),
    [
        ((), ValueError, "needs a group"),
        (("a", "b", "a"), ValueError, "'a' twice"),
        (("a", "no name"), InvalidName, "'no name'"),
        ((5,), InvalidName, "5"),
        ((["a"],), InvalidName, r"\['a'\]"),
    ],
)
async def test_bad_input(
    layer: Any, groups: Any, error: type[Exception], text: str
) -> None:
    """At the call, not when it is entered."""
    with pytest.raises(error, match=text):
        layer.listen(*groups)


async def test_it_is_entered_once(layer: Any) -> None:
    messages = layer.listen("room")
    with pytest.raises(RuntimeError, match="first"):
        await anext(messages)
    async with messages:
        with pytest.raises(RuntimeError, match="before"):
            await messages.__aenter__()
        await layer.group_send("room", {"n": 1})
        assert await anext(messages) == {"n": 1}
    with pytest.raises(RuntimeError, match="before"):
        async with messages:
            pass


def test_without_a_loop(valkey: Server) -> None:
    layer = KINDS["core"](hosts=[valkey.url])
    entering = layer.listen("room").__aenter__()
    with pytest.raises(RuntimeError, match="no running event loop"):
        entering.send(None)
    assert not hasattr(layer.sync, "listen")
