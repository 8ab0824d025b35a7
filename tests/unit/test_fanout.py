"""Bundles of group members: same keys, same lists, same order as the reference."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from channels_redis_fast.wire._fanout import bundle
from support import reference

# Short alphabets, so that keys repeat, begin with one another and share last bytes.
key_like = st.binary(max_size=3) | st.text("ab!", max_size=8).map(str.encode)
members_like = st.lists(key_like | st.binary(max_size=80), max_size=60)


def members_of(processes: int, count: int) -> list[bytes]:
    draw = random.Random(processes)
    keys = [b"specific.%032x!" % draw.getrandbits(128) for _ in range(processes)]
    return [draw.choice(keys) + b"%032x" % draw.getrandbits(128) for _ in range(count)]


def assert_same(members: list[bytes]) -> None:
    compiled, expected = bundle(members), reference.bundle(members)
    assert compiled == expected
    assert list(compiled) == list(expected)


@given(members_like)
@example([])
@example([b"", b"!", b"!!", b"a", b"a!", b"a!!", b"a!b!c", b"\xff\x00!\x00"])
def test_agrees_with_reference(members: list[bytes]) -> None:
    assert_same(members)


@pytest.mark.parametrize("processes", [1, 2, 5, 64, 255, 256, 500, 1500])
@pytest.mark.parametrize("count", [255, 256, 257, 1000, 5000])
def test_agrees_with_reference_for_names_of_layers(processes: int, count: int) -> None:
    assert_same(members_of(processes, count))


def test_many_keys_with_the_same_last_bytes() -> None:
    # All of them want one slot, and are told apart by their bytes.
    assert_same([b"%d-same!%d" % (number % 7, number) for number in range(100)])


def test_keys_of_equal_length_and_beginning() -> None:
    assert_same([b"aaaaaaab!1", b"aaaaaaac!1", b"aaaaaaab!2", b"aaaaaaa!b!3"])


def test_members_are_the_objects_given() -> None:
    members = members_of(3, 30)
    assert {id(member) for member in members} == {
        id(member) for names in bundle(members).values() for member in names
    }


def test_empty_members_are_skipped() -> None:
    assert bundle([b"", b"a!1", b""]) == {b"a!": [b"a!1"]}
    assert bundle([b""]) == {}


@pytest.mark.parametrize("member", ["a!1", None, 7, bytearray(b"a!1")])
def test_a_member_that_is_not_bytes_is_refused(member: object) -> None:
    with pytest.raises(TypeError, match="group member must be bytes, not "):
        bundle([b"a!1", member])


@pytest.mark.parametrize("members", [None, (b"a!1",), iter([b"a!1"]), {b"a!1"}])
def test_anything_but_a_list_is_refused(members: object) -> None:
    with pytest.raises(TypeError):
        bundle(members)


def test_a_subclass_of_bytes_gives_plain_keys() -> None:
    member = type("Member", (bytes,), {})(b"chat")
    bundles = bundle([member])
    assert bundles == {b"chat": [member]}
    assert [type(key) for key in bundles] == [bytes]
