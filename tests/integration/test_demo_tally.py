"""The accounts of the demo's check: nothing wrong goes unnoticed."""

from __future__ import annotations

import pytest

from channels_redis_fast.demo.tally import AHEAD, Tally, quantile


@pytest.fixture
def tally() -> Tally:
    """Two clients in one room and one in another, with three messages each."""
    return Tally([[0, 1], [2]], 9)


def test_tally_of_what_is_right(tally: Tally) -> None:
    for _ in range(3):
        for client, room in ((0, (0, 1)), (1, (0, 1)), (2, (2,))):
            number = tally.speakers[client].say()
            for listener in room:
                tally.hear(listener, f"{client}:{number}")
    assert tally.right
    assert (tally.said, tally.incomplete, tally.deliveries) == (9, 0, 15)
    assert len(tally.round_trips) == 9


def test_tally_of_what_was_not_said(tally: Tally) -> None:
    assert not tally.right
    assert tally.lost == 0


def test_tally_of_a_loss(tally: Tally) -> None:
    tally.speakers[0].say()
    tally.hear(0, "0:0")
    assert (tally.lost, tally.incomplete) == (1, 1)


def test_tally_of_a_second_copy(tally: Tally) -> None:
    tally.speakers[0].say()
    tally.hear(1, "0:0")
    tally.hear(1, "0:0")
    assert (tally.doubled, tally.deliveries, tally.lost) == (1, 1, 1)


def test_tally_of_a_wrong_order(tally: Tally) -> None:
    for _ in range(3):
        tally.speakers[0].say()
    for number in (1, 0, 2):
        tally.hear(1, f"0:{number}")
    assert (tally.reordered, tally.doubled) == (1, 0)


@pytest.mark.parametrize(
    "text", ["2:0", "0:0", "7:0", "hello", ":", "0:", "0:-1", "0:9", "\u0663:0"]
)
def test_tally_of_what_belongs_elsewhere(tally: Tally, text: str) -> None:
    tally.speakers[2].say()
    tally.hear(1, text)
    assert (tally.strays, tally.deliveries) == (1, 0)


def test_speaker_waits_for_itself_and_for_its_room() -> None:
    tally = Tally([[0, 1]], 20)
    speaker = tally.speakers[0]
    for number in range(AHEAD):
        assert speaker.may_say()
        speaker.say()
        assert not speaker.may_say()
        tally.hear(0, f"0:{number}")
    assert not speaker.may_say()
    tally.hear(1, "0:0")
    assert speaker.may_say()


def test_speaker_that_gave_up_still_misses_its_messages() -> None:
    tally = Tally([[0, 1]], 20)
    speaker = tally.speakers[0]
    speaker.say()
    speaker.give_up()
    assert speaker.may_say()
    assert tally.lost == 2
    tally.hear(0, "0:0")
    tally.hear(1, "0:0")
    assert tally.lost == 0


def test_quantile() -> None:
    values = list(range(100, 0, -1))
    assert (quantile(values, 0.5), quantile(values, 0.99)) == (51, 100)
    assert quantile([], 0.5) != quantile([], 0.5)
