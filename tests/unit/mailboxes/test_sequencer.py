"""What comes in any order, given in order."""

from __future__ import annotations

from channels_redis_fast.mailboxes.sequencer import NOWHERE, Sequencer, Step


def begun(last: int = 0, size: int = 5) -> Sequencer[str]:
    sequencer: Sequencer[str] = Sequencer(size)
    sequencer.fill((1, last), [], 0)
    return sequencer


def steps(*offsets: int) -> list[Step[str]]:
    return [((1, offset), str(offset)) for offset in offsets]


def items(*offsets: int) -> list[tuple[tuple[int, int], str]]:
    return [((1, offset), str(offset)) for offset in offsets]


def test_what_comes_in_order_is_given_once() -> None:
    sequencer = begun()
    assert sequencer.take((1, 1), "1") == steps(1)
    assert sequencer.take((1, 1), "1") == []
    assert sequencer.last == (1, 1)


def test_what_comes_too_early_waits() -> None:
    sequencer = begun()
    assert sequencer.take((1, 2), "2") == []
    assert sequencer.has_hole
    assert sequencer.take((1, 1), "1") == steps(1, 2)
    assert not sequencer.has_hole


def test_a_hole_is_filled() -> None:
    sequencer = begun()
    sequencer.take((1, 3), "3")
    assert sequencer.fill((1, 4), items(1, 2, 3, 4), 0) == steps(1, 2, 3, 4)
    assert not sequencer.has_hole


def test_what_is_gone_is_a_gap_before_what_came() -> None:
    sequencer = begun()
    sequencer.take((1, 7), "7")
    found = items(4, 5, 6, 7, 8)
    assert sequencer.fill((1, 8), found, 0) == [((1, 6), None), *steps(7, 8)]


def test_another_epoch_follows_its_gap_whole_if_it_is_there() -> None:
    sequencer = begun(3)
    assert sequencer.fill((2, 2), [], 3) == []
    assert sequencer.is_elsewhere
    found = [((2, 1), "a"), ((2, 2), "b")]
    expected = [((2, 0), None), ((2, 1), "a"), ((2, 2), "b")]
    assert sequencer.fill((2, 2), found, 0) == expected
    assert not sequencer.has_hole


def test_before_the_first_answer_nothing_is_given() -> None:
    sequencer: Sequencer[str] = Sequencer(5)
    assert sequencer.last == NOWHERE
    assert sequencer.take((1, 4), "4") == []
    assert not sequencer.has_hole
    assert sequencer.fill((1, 3), items(2, 3), 0) == steps(4)
    assert sequencer.after((1, 1)) == items(2, 3, 4)
    assert sequencer.after((1, 0)) is None


def test_no_more_waits_and_is_kept_than_redis_keeps() -> None:
    sequencer = begun(size=2)
    for offset in (5, 3, 4):
        sequencer.take((1, offset), str(offset))
    assert sequencer.waits == {(1, 4), (1, 5)}
    sequencer = begun(size=2)
    for offset in (1, 2, 3):
        sequencer.take((1, offset), str(offset))
    assert sequencer.after((1, 1)) == items(2, 3)
    assert sequencer.after((1, 0)) is None


def test_what_redis_never_had_is_asked_for_once() -> None:
    sequencer = begun()
    sequencer.take((1, 99), "99")
    sequencer.take((9, 1), "from elsewhere")
    assert sequencer.fill((1, 1), items(1), 0, sequencer.waits) == steps(1)
    assert not sequencer.has_hole
