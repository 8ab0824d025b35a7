"""Points about messages: their types, their size, whose they are."""

from __future__ import annotations

import json
import sys
from typing import Any

from channels.exceptions import MessageTooLarge

from .points import NotApplicable, point
from .steps import fresh, refuses, soon

MEGABYTE = 1 << 20

TYPES: dict[str, list[Any]] = {
    "Byte strings": [b"", b"bytes", bytes(range(256)), b"\xc1\xff" * 300],
    "Unicode strings": ["", "text", "tête-à-tête", "\0\n\x7f", "\U0001f409" * 300],
    "Integers": [0, 1, -1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)],
    "Floating point numbers": [0.0, 1.0, -0.1, 5e-324, sys.float_info.max],
    "Lists": [[], [1, "a", b"b"], [[["deep"]]], list(range(1000))],
    "Dicts": [{}, {"": ""}, {"key": {"key": {"key": 1}}}, {"clé": [{"a": 1}]}],
    "Booleans": [True, False],
    "None": [None],
}


def same(sent: Any, received: Any) -> bool:
    """Whether two values are equal and of the same types, all the way down."""
    if type(sent) is not type(received):
        return False
    if isinstance(sent, dict):
        return sent.keys() == received.keys() and all(
            same(sent[key], received[key]) for key in sent
        )
    if isinstance(sent, list):
        return len(sent) == len(received) and all(map(same, sent, received))
    return bool(sent == received)


def _carries(values: list[Any]) -> Any:
    async def check(one: Any, other: Any) -> None:
        name = await one.new_channel()
        for value in values:
            message = {"type": "values", "plain": value, "nested": [{"a": [value]}]}
            await other.send(name, message)
            received = await soon(one, name)
            assert same(message, received), f"{value!r:.40} came as {received!r:.80}"

    return check


for _type, _values in TYPES.items():
    point(
        "Messages", f"they are only allowed to contain ...: {_type}", name=_type.lower()
    )(_carries(_values))


@point("Messages", "tuples should be encoded as lists", must=False)
async def tuples_as_lists(one: Any, other: Any) -> None:
    name = await one.new_channel()
    await other.send(name, {"type": "tuple", "pair": (1, (2, 3))})
    assert same({"type": "tuple", "pair": [1, [2, 3]]}, await soon(one, name))


@point("Messages", "Messages must be a dict")
async def only_dicts(one: Any, other: Any) -> None:
    name = await one.new_channel()
    for message in (None, "text", b"bytes", 5, ["type", "list"]):
        assert await refuses(other.send(name, message)), f"took {message!r}"


@point("Messages", "these messages are sometimes sent over a network", must=False)
async def messages_are_copies(one: Any, other: Any) -> None:
    """What the sender does to a message afterwards doesn't reach the reader."""
    name = await one.new_channel()
    message = {"type": "list", "items": [1]}
    await other.send(name, message)
    assert message == {"type": "list", "items": [1]}, "send changed the message"
    message["items"].append(2)
    message["more"] = 1
    assert await soon(one, name) == {"type": "list", "items": [1]}


@point(
    "Messages",
    "these messages are sometimes sent over a network",
    must=False,
    extension="groups",
)
async def members_get_copies(one: Any, other: Any) -> None:
    """What one member does to its message doesn't reach the others."""
    group = fresh("group")
    members = [await one.new_channel() for _ in range(3)]
    for member in members:
        await one.group_add(group, member)
    for message in ({"type": "flat"}, {"type": "nested", "items": [{"a": [1]}]}):
        await other.group_send(group, message)
        for member in members:
            received = await soon(one, member)
            assert received == message
            received.get("items", []).append(2)
            received["more"] = 1


@point("Channel Semantics", "handle messages of at least 1MB ... when encoded as JSON")
async def a_megabyte(one: Any, other: Any) -> None:
    name = await one.new_channel()
    message = {"type": "large", "text": ""}
    message["text"] = "x" * (MEGABYTE - len(json.dumps(message)))
    await other.send(name, message)
    assert await soon(one, name) == message
    message = {"type": "large", "numbers": [123456] * (MEGABYTE // 8 - 10)}
    await other.send(name, message)
    assert await soon(one, name) == message


@point(
    "Channel Semantics",
    "handle messages of at least 1MB ... when encoded as JSON",
    extension="groups",
)
async def a_megabyte_to_a_group(one: Any, other: Any) -> None:
    group, members = fresh("group"), [await one.new_channel() for _ in range(3)]
    for member in members:
        await one.group_add(group, member)
    message = {"type": "large", "text": "x" * (MEGABYTE - 30)}
    await other.group_send(group, message)
    for member in members:
        assert await soon(one, member) == message


@point(
    "Specification Details",
    "MessageTooLarge, the exception raised when ... the encoded message is over the "
    "layer's size limit",
    max_message_size=2 * MEGABYTE,
)
async def too_large_raises(one: Any, other: Any) -> None:
    name = await one.new_channel()
    try:
        await other.send(name, {"type": "large", "text": "x" * 3 * MEGABYTE})
    except MessageTooLarge:
        return
    raise NotApplicable("no limit")
