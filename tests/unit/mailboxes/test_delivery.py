"""Bytes that come by a key, into the mailboxes they are for."""

from __future__ import annotations

from typing import Any

import pytest

from channels_redis_fast.mailboxes.delivery import Delivery
from channels_redis_fast.mailboxes.dropped import DropCounters
from channels_redis_fast.mailboxes.waiters import opened
from channels_redis_fast.wire.codec import SizeLimit, codec_of
from channels_redis_fast.wire.formats import MsgPackSerializer
from channels_redis_fast.wire.reserved import CLEAR, EXCLUDE
from support.mailboxes import KEY, channels

A, B, NOBODY = (f"{KEY}{name}" for name in ("a", "b", "nobody"))
BYTES = KEY.encode()
CODEC: Any = codec_of(MsgPackSerializer(), SizeLimit(1000, ValueError))


def delivered(*members: bytes) -> tuple[Any, dict[str, int]]:
    """What is in two mailboxes, and what was dropped."""
    counters = DropCounters()
    boxes = channels(counters)
    for name in (A, B):
        boxes.open(name)
    (inbox,) = boxes.owners.inboxes()
    delivery = Delivery(boxes, CODEC, counters)
    for member in members:
        delivery.deliver(member, BYTES, inbox)
    return boxes.snapshot(), counters.snapshot()


def sealed(message: dict[str, Any], *names: str) -> bytes:
    body = CODEC.body(message)
    if len(names) == 1:
        return bytes(CODEC.seal(body, names[0], BYTES))
    return bytes(CODEC.seal_list(body, [n.encode() for n in names], BYTES))


@pytest.mark.parametrize("message", [{"n": 1}, {"deep": {"n": [1]}}])
def test_several_get_the_same_message(message: dict[str, Any]) -> None:
    got, dropped = delivered(sealed(message, A, B))
    assert got == {A: (message,), B: (message,)}
    assert got[A][0] is not got[B][0]
    assert all(got[A][0][key] is not got[B][0][key] for key in message if key == "deep")
    assert dropped == {}


def test_who_is_there_no_more_is_counted() -> None:
    got, dropped = delivered(sealed({"n": 1}, A, NOBODY), sealed({"n": 2}, NOBODY))
    assert got == {A: ({"n": 1},)}
    assert dropped == {"for no channel of this process": 2}


def test_what_is_for_nobody_or_unreadable_is_counted() -> None:
    nobody = bytes(CODEC.seal(CODEC.body({"n": 1}), None, BYTES))
    got, dropped = delivered(nobody, b"no message", sealed({"n": 2}, B))
    assert got == {B: ({"n": 2},)}
    assert dropped == {"for no channel of this process": 1, "unreadable": 1}


def published(message: dict[str, Any], *names: str) -> tuple[Any, dict[str, int], Any]:
    """What is in the mailboxes after a publication for those; what was cleared."""
    counters, cleared = DropCounters(), []
    boxes = channels(counters)
    for name in (A, B):
        boxes.open(name)
    delivery = Delivery(boxes, CODEC, counters, lambda *about: cleared.append(about))
    payload = bytes(CODEC.seal(CODEC.body(message), None, BYTES))
    delivery.deliver(payload, BYTES, None, None, names)
    waiting = [boxes.begin(name) for name in (A, B) if name in boxes.snapshot()]
    return [opened(one) for one in waiting], counters.snapshot(), cleared  # type: ignore[arg-type]


@pytest.mark.parametrize("message", [{"n": 1}, {"deep": {"n": [1]}}])
@pytest.mark.parametrize("excluded", [[NOBODY], [A], [A, B], []])
def test_who_is_excluded_gets_nothing(message: Any, excluded: list[str]) -> None:
    got, dropped, _ = published({**message, EXCLUDE: excluded}, A, B)
    assert got == [message] * (2 - len({A, B} & {*excluded}))
    assert len({id(one) for one in got}) == len(got)
    assert dropped == {}


@pytest.mark.parametrize("excluded", [None, "name", 5, [5], {"a": 1}])
def test_names_that_are_none(excluded: Any) -> None:
    got, dropped, _ = published({"n": 1, EXCLUDE: excluded}, A, B)
    assert (got, dropped) == ([], {"unreadable": 1})


def test_groups_that_were_cleared() -> None:
    """Nobody gets the notice, whichever way it comes."""
    notice = {EXCLUDE: [], CLEAR: "who"}
    assert published(notice, A, B) == ([], {}, [("who", BYTES)])
    assert delivered(sealed({CLEAR: "room"}, NOBODY))[1] != {}
    counters, cleared = DropCounters(), []
    boxes = channels(counters)
    boxes.open(A)
    delivery = Delivery(boxes, CODEC, counters, lambda *about: cleared.append(about))
    member = bytes(CODEC.seal_list(CODEC.body({CLEAR: "room"}), [], BYTES))
    delivery.deliver(member, BYTES, boxes.owners.inboxes()[0])
    assert (cleared, counters.snapshot()) == ([("room", BYTES)], {})
