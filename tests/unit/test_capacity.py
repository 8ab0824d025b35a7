"""CapacityTable: Channels' own answers, in the rules' order, for any patterns."""

from __future__ import annotations

import enum
import gc
import re
import string
import threading
import weakref

import pytest
from channels.layers import BaseChannelLayer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from channels_redis_fast.exceptions import InvalidSetting
from channels_redis_fast.wire import _capacity
from channels_redis_fast.wire._capacity import CapacityTable
from support import reference

DOCUMENTED = [
    ("http.request", 200),
    ("http.response!*", 10),
    (re.compile(r"^websocket.send\!.+"), 20),
]

channels = st.text("ab.!-x\\\n", max_size=8) | st.text(max_size=10)
globs = st.text("ab.!*?[]-x", max_size=8)
regex_texts = st.text(r"ab\.!*+?{}1|^$()[]x-# ", max_size=8)
flags = st.sampled_from([0, re.IGNORECASE, re.VERBOSE, re.MULTILINE, re.DOTALL])


def compiles(arguments: tuple[str, int]) -> bool:
    try:
        re.compile(*arguments)
    except re.error:
        return False
    return True


regexes = (
    st.tuples(regex_texts, flags)
    .filter(compiles)
    .map(lambda arguments: re.compile(*arguments))
)
rules_like = st.lists(st.tuples(globs | regexes, st.integers(0, 10**30)), max_size=6)


@settings(max_examples=5 * settings().max_examples)
@pytest.mark.filterwarnings("ignore:Possible :FutureWarning")
@pytest.mark.filterwarnings("ignore:Flags not at the start:DeprecationWarning")
@given(rules_like, st.lists(channels, max_size=20))
@example([("a*", 1), ("ab", 2)], ["ab", "a", "b"])
@example([("a", 1), (re.compile("ab?"), 2)], ["a", "ab", "abx"])
@example([(re.compile("ab*"), 1), (re.compile("xb{0,2}"), 2)], ["a", "x", "xbb"])
@example([(re.compile("a|b"), 1)], ["a", "b", "x"])
@example([(re.compile("AB", re.IGNORECASE), 1)], ["ab"])
@example([(re.compile("(?i)AB"), 1)], ["ab"])
@example([(re.compile("a *b", re.VERBOSE), 1)], ["b", "ab", "a b"])
@example([(re.compile("a(?#comment)*b"), 1)], ["b", "ab"])
@example([(re.compile(r"a\-\.\!b\d"), 1)], ["a-.!b1", "a-.!bd"])
@example([(re.compile(r"a\\b"), 1)], ["ab", r"a\b"])
@example([("[!a]b", 1), ("a[", 2)], ["ab", "xb", "a["])
@example([("**", 3)], ["", "a\nb"])
def test_agrees_with_reference(rules: list, names: list[str]) -> None:
    compiled = CapacityTable(100, rules)
    expected = reference.CapacityTable(100, rules)
    for name in names * 2:  # the second time from the memo
        assert compiled.lookup(name) == expected.lookup(name)


@given(st.text(string.ascii_letters + ".!", max_size=20))
@example("http.request")
@example("http.response!x")
@example("websocket.send!x")
def test_agrees_with_channels(channel: str) -> None:
    base = BaseChannelLayer(capacity=100)
    base.channel_capacity = base.compile_capacities(dict(DOCUMENTED))
    assert CapacityTable(100, DOCUMENTED).lookup(channel) == base.get_capacity(channel)


def test_documented_example() -> None:
    table = CapacityTable(100, DOCUMENTED)
    assert table.default == 100
    assert table.lookup("http.request") == 200
    assert table.lookup("http.requests") == 100
    assert table.lookup("http.response!a") == 10
    assert table.lookup("http.response") == 100
    assert table.lookup("websocket.send!a") == 20
    assert table.lookup("websocket.send!") == 100


def test_first_match_wins() -> None:
    regex = re.compile("ab")
    assert CapacityTable(9, [("a*", 1), (regex, 2)]).lookup("ab") == 1
    assert CapacityTable(9, [(regex, 2), ("a*", 1)]).lookup("ab") == 2
    assert CapacityTable(9, [(regex, 2), ("a*", 1)]).lookup("ac") == 1


def test_no_rules() -> None:
    table = CapacityTable(7, [])
    assert table.lookup("anything at all") == table.default == 7


def test_a_capacity_of_zero_is_a_capacity() -> None:
    assert CapacityTable(9, [("a", 0), (re.compile("b"), 0)]).lookup("a") == 0
    assert CapacityTable(9, [(re.compile("b"), 0)]).lookup("b") == 0
    assert CapacityTable(0, []).lookup("a") == 0


def test_rules_may_be_consumed_once() -> None:
    assert CapacityTable(9, iter([("a", 1)])).lookup("a") == 1
    assert CapacityTable(9, {"a": 1}.items()).lookup("a") == 1


def test_an_enum_of_str_is_the_glob_it_holds() -> None:
    kind = enum.Enum("Kind", {"REQUEST": "http.*"}, type=str)
    assert CapacityTable(9, [(kind.REQUEST, 1)]).lookup("http.request") == 1


class Calls:
    """A pattern that says yes or no, and counts how often it was asked."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.names: list[str] = []

    def match(self, name: str) -> object:
        self.names.append(name)
        return self.answer


def test_anything_with_a_match_method_is_a_pattern() -> None:
    refusing, agreeing = Calls(()), Calls("yes")
    table = CapacityTable(9, [(refusing, 1), (agreeing, 2)])
    assert [table.lookup("a"), table.lookup("a")] == [2, 2]
    assert refusing.names == agreeing.names == ["a"]


def test_memo_is_bounded_and_starts_afresh() -> None:
    pattern = Calls(None)
    table = CapacityTable(9, [(pattern, 1)])
    for number in range(1024):
        table.lookup(f"name{number}")
    table.lookup("name0")
    assert len(pattern.names) == 1024
    table.lookup("one more")
    table.lookup("name0")
    assert len(pattern.names) == 1026


def test_names_are_decided_without_the_regexes_where_possible() -> None:
    pattern = Calls("yes")
    table = CapacityTable(9, [("specific.*", 1), (pattern, 2)])
    assert {table.lookup(f"specific.{number}") for number in range(2000)} == {1}
    assert pattern.names == []


def test_a_remembered_name_is_not_kept_alive() -> None:
    class Name(str):
        """Can be referred to weakly, as the names that layers give out."""

    name = Name("chat")
    watch = weakref.ref(name)
    table = CapacityTable(9, [(re.compile(".*"), 1)])
    assert table.lookup(name) == 1
    del name
    gc.collect()
    assert watch() is None
    assert table.lookup("chat") == 1


def test_an_error_of_a_pattern_is_raised_and_not_remembered() -> None:
    class Moody:
        calls = 0

        def match(self, name: str) -> bool:
            self.calls += 1
            if self.calls == 1:
                raise LookupError(name)
            return True

    table = CapacityTable(9, [(Moody(), 1)])
    with pytest.raises(LookupError):
        table.lookup("a")
    assert table.lookup("a") == 1


@pytest.mark.parametrize("capacity", [-1, True, 1.0, "10", None])
def test_capacities_are_checked(capacity: object) -> None:
    with pytest.raises(InvalidSetting, match=f"capacity .*not {capacity!r}"):
        CapacityTable(capacity, [])
    with pytest.raises(InvalidSetting, match=f"'http.*not {capacity!r}"):
        CapacityTable(9, [("http.request", capacity)])


@pytest.mark.parametrize("pattern", [7, None, b"http*", re.compile(b"http"), ["a"]])
def test_patterns_are_checked(pattern: object) -> None:
    with pytest.raises(InvalidSetting, match="not ") as caught:
        CapacityTable(9, [(pattern, 1)])
    assert repr(pattern) in str(caught.value)


def test_a_glob_that_does_not_compile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # As [b-a] is on Python 3.10; later ones translate everything.
    monkeypatch.setattr(_capacity, "translate", lambda glob: "(")
    with pytest.raises(InvalidSetting, match=re.escape("'[b-a]'")):
        CapacityTable(9, [("[b-a]", 1)])


def test_subclasses_of_int_are_returned_as_they_are() -> None:
    limit = enum.IntEnum("Limit", ["LOW", "HIGH"])
    table = CapacityTable(limit.LOW, [("a", limit.HIGH)])
    assert table.lookup("a") is limit.HIGH
    assert table.lookup("b") is table.default is limit.LOW


@pytest.mark.parametrize("channel", [None, 7, b"http.request"])
def test_channels_are_str(channel: object) -> None:
    for rules in ([], DOCUMENTED):
        with pytest.raises(TypeError, match="channel name must be a str, not "):
            CapacityTable(9, rules).lookup(channel)


def test_immutable() -> None:
    table = CapacityTable(9, [])
    with pytest.raises(AttributeError):
        table.default = 1
    with pytest.raises(AttributeError):
        table.more = 1


def test_threads_get_the_right_answers() -> None:
    # More names than the memo holds, so that it is cleared while others read it.
    rules = [(re.compile(rf".*{digit}$"), 10**6 + digit) for digit in range(10)]
    table = CapacityTable(9, rules)
    wrong: list[str] = []
    start = threading.Barrier(4)

    def look_up() -> None:
        start.wait()
        for number in range(6000):
            if table.lookup(f"name{number}") != 10**6 + number % 10:
                wrong.append(f"name{number}")

    threads = [threading.Thread(target=look_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
