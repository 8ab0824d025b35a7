"""Names: what is valid, the non-local part, and what the errors say."""

from __future__ import annotations

import string
from collections.abc import Callable

import pytest
from channels.layers import BaseChannelLayer
from hypothesis import example, given
from hypothesis import strategies as st

from channels_redis_fast._base import BaseRedisLayer
from channels_redis_fast.exceptions import InvalidName
from channels_redis_fast.wire import _names
from support import reference

WORD = string.ascii_letters + string.digits + "-_."
SPECIFIC = "specific." + "0123456789abcdef" * 2 + "!"

# Mostly good names, spoiled now and then; text() alone would hardly ever be valid.
nearly_names = st.text(st.sampled_from(WORD + "!!!\n é٣\ud800\x00"), max_size=120)
good_names = st.from_regex(reference.CHANNEL, fullmatch=True)
names = st.one_of(good_names, nearly_names, st.text(max_size=120))


class Name(str):
    """As the names that layers give to consumers."""


def outcome(function, name):
    try:
        return function(name)
    except TypeError:
        return TypeError


@given(names)
@example("a" * 100)
@example("a" * 101)
@example("abc\n")
@example("a!b!c")
@example("٣")
@example("")
@example("!")
@example("a!")
def test_agrees_with_reference(name: str) -> None:
    for function in ("non_local_name", "check_group"):
        compiled = outcome(getattr(_names, function), name)
        assert compiled == outcome(getattr(reference, function), name)
    assert _names.split_local(name) == reference.split_local(name)


@given(names)
def test_accepts_nothing_that_channels_refuses(name: str) -> None:
    base = BaseChannelLayer()
    base.MAX_NAME_LENGTH = (
        BaseRedisLayer.MAX_NAME_LENGTH
    )  # one more than Channels takes
    required = "require_" if hasattr(base, "require_valid_channel_name") else ""
    for ours, theirs in (
        (_names.non_local_name, getattr(base, f"{required}valid_channel_name")),
        (_names.check_group, getattr(base, f"{required}valid_group_name")),
    ):
        try:
            ours(name)
        except InvalidName:
            continue
        assert theirs(name)


@given(good_names.filter(lambda name: len(name) < 101))
def test_non_local_part_is_channels_own(name: str) -> None:
    expected = BaseChannelLayer().non_local_name(name)
    assert _names.non_local_name(name) == _names.split_local(name) == expected


def takes(check: Callable[[str], object], name: str) -> bool:
    try:
        check(name)
    except InvalidName:
        return False
    return True


def test_every_byte() -> None:
    names = {chr(code): f"a{chr(code)}" for code in range(256)}
    groups = {c for c, name in names.items() if takes(_names.check_group, name)}
    channels = {c for c, name in names.items() if takes(_names.non_local_name, name)}
    assert groups == set(WORD)
    assert channels == {*WORD, "!"}
    for character in channels:
        name = names[character]
        assert _names.non_local_name(name) == name


@pytest.mark.parametrize("name", ["c" * 100, SPECIFIC + "c" * 40])
def test_every_place(name: str) -> None:
    assert _names.non_local_name(name)
    for place in range(len(name)):
        with pytest.raises(InvalidName):
            _names.non_local_name(f"{name[:place]} {name[place + 1 :]}")
        with pytest.raises(InvalidName):
            _names.check_group(f"{name[:place]} {name[place + 1 :]}")


@pytest.mark.parametrize("name", [SPECIFIC, "chat", Name("chat"), Name(SPECIFIC)])
def test_the_same_object_when_nothing_is_cut_off(name: str) -> None:
    assert _names.non_local_name(name) is name
    assert _names.split_local(name) is name


def test_a_part_is_a_plain_str() -> None:
    name = Name(SPECIFIC + "local")
    for function in (_names.non_local_name, _names.split_local):
        assert function(name) == SPECIFIC
        assert type(function(name)) is str


@pytest.mark.parametrize("name", [None, 7, b"chat", bytearray(b"chat"), ["chat"], str])
def test_other_types_are_refused(name: object) -> None:
    for function in (_names.non_local_name, _names.check_group):
        with pytest.raises(InvalidName):
            function(name)
    with pytest.raises(TypeError, match="channel name must be a str, not"):
        _names.split_local(name)


@pytest.mark.parametrize("name", ["no way", "", "abc\n", "\ud800", 7, "x" * 101])
@pytest.mark.parametrize(
    ("function", "kind"),
    [(_names.non_local_name, "Channel"), (_names.check_group, "Group")],
    ids=["channel", "group"],
)
def test_text_is_the_layers_own_and_names_the_value(function, kind, name) -> None:
    with pytest.raises(InvalidName) as caught:
        function(name)
    text = BaseRedisLayer.invalid_name_error.format(kind)
    assert str(caught.value) == f"{text}, not {name!r}"
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("name", ["x" * 10**6, b"x" * 10**6, ["x" * 10**6] * 100])
def test_text_is_short_for_enormous_values(name: object) -> None:
    for function in (_names.non_local_name, _names.check_group):
        with pytest.raises(InvalidName, match="xxx") as caught:
            function(name)
        assert len(str(caught.value)) < 1500


@given(st.text(st.characters(), max_size=300))
@example("√" * 200 + "!" + "☃" * 200)
@example("\U0001f600!x\ud800")
def test_splits_any_text(name: str) -> None:
    assert _names.split_local(name) == reference.split_local(name)
