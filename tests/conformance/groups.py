"""Points about groups, and about `flush`."""

from __future__ import annotations

import asyncio
from typing import Any

from .channels import BAD_NAMES
from .points import point
from .steps import empty, fresh, numbers, refuses, running, silent, soon

ADD = "takes a channel and adds it to the group"
DISCARD = (
    "removes the channel from the group if it is in it, and does nothing otherwise"
)
EMPTY = (
    "resets the channel layer to a blank state, containing no messages and no groups"
)


@point("Specification Details", ADD, extension="groups")
async def all_members_get_it(one: Any, other: Any) -> None:
    """Of both processes, once each, as it was sent."""
    group, members = fresh("group"), []
    for layer in (one, other, one, other):
        members.append((layer, await layer.new_channel()))
        await layer.group_add(group, members[-1][1])
    for layer in (one, other):
        message = {"type": "all", "values": [None, 1, b"x", {"a": True}]}
        await layer.group_send(group, message)
        for reader, member in members:
            assert await soon(reader, member) == message
    for reader, member in members:
        assert await silent(reader, member)


@point("Specification Details", ADD, extension="groups")
async def any_channel_joins(one: Any, other: Any) -> None:
    """A normal channel, and another process's."""
    group, theirs, worker = fresh("group"), await other.new_channel(), fresh()
    for channel in (theirs, worker):
        await one.group_add(group, channel)
    await one.group_send(group, {"type": "all"})
    for channel in (theirs, worker):
        assert await soon(other, channel) == {"type": "all"}


@point("Specification Details", ADD, extension="groups")
async def groups_are_separate(one: Any, other: Any) -> None:
    groups = [fresh("group") for _ in range(8)]
    name = await one.new_channel()
    for group in groups[::2]:
        await one.group_add(group, name)
    for n, group in enumerate(groups):
        await other.group_send(group, {"n": n})
    assert sorted(await numbers(one, name, 4)) == [0, 2, 4, 6]
    assert await silent(one, name)


@point(
    "Specification Details",
    "If the channel is already in the group, the function should return normally",
    extension="groups",
)
async def joining_twice(one: Any, other: Any) -> None:
    group, name = fresh("group"), await one.new_channel()
    for _ in range(3):
        await one.group_add(group, name)
    await other.group_send(group, {"type": "once"})
    assert await soon(one, name) == {"type": "once"}
    assert await silent(one, name)


@point("Specification Details", DISCARD, extension="groups")
async def leaving(one: Any, other: Any) -> None:
    """Who left gets no more; who stayed does."""
    group = fresh("group")
    leaves, stays = await one.new_channel(), await one.new_channel()
    for name in (leaves, stays):
        await one.group_add(group, name)
        await one.group_add(group, name)
    await one.group_discard(group, leaves)
    await other.group_send(group, {"type": "all"})
    assert await soon(one, stays) == {"type": "all"}
    assert await silent(one, leaves)


@point("Specification Details", DISCARD, extension="groups")
async def leaving_without_joining(one: Any, other: Any) -> None:
    group, name = fresh("group"), await one.new_channel()
    await one.group_discard(group, name)
    await one.group_add(group, name)
    await one.group_discard(group, await one.new_channel())
    for _ in range(2):
        await one.group_discard(group, name)
    await other.group_send(group, {"type": "nobody"})
    assert await silent(one, name)


@point(
    "Channel Semantics",
    "attempt to preserve ordering in all cases as much as possible",
    must=False,
    extension="groups",
)
async def order_in_groups(one: Any, other: Any) -> None:
    group, name = fresh("group"), await one.new_channel()
    await one.group_add(group, name)
    for n in range(50):
        await other.group_send(group, {"n": n})
    assert await numbers(one, name, 50) == list(range(50))


@point(
    "Strings and Unicode",
    "Channel and group names are always unicode strings ... only use the following",
    extension="groups",
)
async def bad_group_names(one: Any, other: Any) -> None:
    name = await one.new_channel()
    for bad in (*BAD_NAMES, "a!b"):
        assert await refuses(one.group_add(bad, name)), f"group_add({bad!r})"
        assert await refuses(one.group_discard(bad, name)), f"group_discard({bad!r})"
        assert await refuses(one.group_send(bad, {"n": 1})), f"group_send({bad!r})"


# How long membership lasts


@point(
    "Specification Details",
    "group_expiry, an integer number of seconds",
    extension="groups",
)
async def group_expiry_is_a_property(one: Any, other: Any) -> None:
    assert type(one.group_expiry) is int


@point("Persistence", "the default being 86,400 seconds (one day)", extension="groups")
async def group_expiry_is_a_day(one: Any, other: Any) -> None:
    assert one.group_expiry == 86_400


@point(
    "Persistence",
    "must also drop group membership after a configurable long timeout",
    extension="groups",
    waits=True,
    group_expiry=1,
)
async def membership_ends(one: Any, other: Any) -> None:
    group, name = fresh("group"), await one.new_channel()
    await one.group_add(group, name)
    await other.group_send(group, {"type": "member"})
    assert await soon(one, name) == {"type": "member"}
    await asyncio.sleep(2.6)
    await other.group_send(group, {"type": "late"})
    assert await silent(one, name)


@point(
    "Persistence",
    "after the most recent group_add call for that membership",
    extension="groups",
    waits=True,
    group_expiry=2,
)
async def joining_anew(one: Any, other: Any) -> None:
    group, name = fresh("group"), await one.new_channel()
    await one.group_add(group, name)
    await asyncio.sleep(1.2)
    await one.group_add(group, name)
    await asyncio.sleep(1.2)
    await other.group_send(group, {"type": "member"})
    assert await soon(one, name) == {"type": "member"}


@point(
    "Persistence",
    "must persist group membership until ... the member channel has a message expire",
    extension="groups",
    waits=True,
    expiry=1,
)
async def silence_ends_no_membership(one: Any, other: Any) -> None:
    """Longer than messages live; and again after one was delivered."""
    group, name = fresh("group"), await one.new_channel()
    await one.group_add(group, name)
    for n in range(2):
        await asyncio.sleep(1.5)
        await other.group_send(group, {"n": n})
        assert await soon(one, name) == {"n": n}


# The flush extension


@point("Specification Details", EMPTY, extension="flush")
async def flush_removes_all(one: Any, other: Any) -> None:
    await _flushed(one, one)


@point(
    "Specification Details",
    "consistently look empty to any client, if the channel layer is distributed",
    extension="flush",
)
async def flush_for_all_clients(one: Any, other: Any) -> None:
    await _flushed(one, other)


async def _flushed(one: Any, client: Any) -> None:
    """What `one` flushes, `client` doesn't find, nor is it in a group any more."""
    group, name, worker = fresh("group"), await client.new_channel(), fresh()
    for channel in (name, worker):
        await one.send(channel, {"type": "old"})
    if "groups" in one.extensions:
        await client.group_add(group, name)
    await one.flush()
    if "groups" in one.extensions:
        await one.group_send(group, {"type": "late"})
    assert await silent(client, name)
    assert await empty(client, worker)


@point("Specification Details", EMPTY, extension="flush")
async def goes_on_after_flush(one: Any, other: Any) -> None:
    """Who waits goes on waiting; who joins again is a member."""
    name, worker, group = await one.new_channel(), fresh(), fresh("group")
    async with running(soon(one, name), soon(one, worker)) as waiting:
        await asyncio.sleep(0.05)
        await one.flush()
        for channel in (name, worker):
            await one.send(channel, {"to": str(channel)})
        assert await asyncio.gather(*waiting) == [{"to": str(name)}, {"to": worker}]
    if "groups" in one.extensions:
        await one.group_add(group, name)
        await one.group_send(group, {"type": "new"})
        assert await soon(one, name) == {"type": "new"}
