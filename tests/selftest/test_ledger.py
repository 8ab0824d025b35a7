"""The ledger notices what it is there for."""

from __future__ import annotations

from collections.abc import Iterable

from support.fault_sums import sums
from support.ledger import (
    ACCEPTED,
    Addressee,
    FollowersLedger,
    Ledger,
    Promise,
    Source,
    Verdict,
)

LINE = "process 0"
COSTLY = Promise({LINE: 2})


def books(
    sent: int | list[str],
    got: Iterable[int],
    *outages: tuple[int, int],
    promise: Promise = COSTLY,
) -> Verdict:
    """The verdict on one source and addressee.

    An outage is the number that came last before it, and the first that was sent
    after it.
    """
    ledger = Ledger()
    outcomes = [ACCEPTED] * sent if isinstance(sent, int) else sent
    source = ledger.sources["s"] = Source("s", "direct", outcomes)
    addressee = Addressee(LINE, [source])
    ledger.addressees.append(addressee)
    for last, over in outages:
        addressee.newest["s"] = last
        ledger.begin_outage().over = {"s": over}
    for number in got:
        addressee.note(("s", number), 0.0)
    return ledger.verdict(promise)


def test_all_is_well() -> None:
    found = books(5, range(5))
    assert (found.sent, found.arrived, found.lost, found.problems) == (5, 5, 0, [])


def test_lost_without_an_outage() -> None:
    found = books(5, [0, 1, 3, 4])
    assert (found.sent, found.arrived, found.lost, found.bound) == (5, 4, 1, 0)
    assert ["nothing was wrong" in problem for problem in found.problems] == [True]


def test_lost_in_an_outage() -> None:
    found = books(8, [0, 1, 4, 5, 6, 7], (1, 3))
    assert (found.lost, found.bound, found.problems) == (2, 2, [])
    for got in (
        [0, 3, 4, 5, 6, 7],  # that which had come before
        [0, 1, 4, 5, 7],  # one that was sent and missed after others came
    ):
        assert books(8, got, (1, 3)).problems


def test_each_outage_has_a_limit() -> None:
    assert not books(9, [0, 3, 4, 7, 8], (0, 2), (4, 6)).problems
    assert books(9, [0, 4, 5, 6, 7, 8], (0, 3), (6, 8)).problems


def test_what_is_published_may_be_lost_in_an_outage_only() -> None:
    promise = Promise({LINE: 0}, exempt=frozenset({"direct"}))
    found = books(9, [0, 7, 8], (0, 6), promise=promise)
    assert (found.lost, found.bound, found.problems) == (6, 6, [])
    assert books(9, [0, 6, 8], (0, 6), promise=promise).problems


def test_twice_and_out_of_order() -> None:
    found = books(4, [0, 1, 1, 3, 2])
    assert (found.doubled, found.reordered, len(found.problems)) == (1, 1, 2)
    assert not books(4, [0, 2, 1, 3], promise=Promise({}, order=False)).problems


def test_some_may_come_twice() -> None:
    promise = Promise({LINE: 2}, repeats=1)
    assert not books(4, [0, 1, 1, 2, 3], (0, 2), promise=promise).problems
    assert books(4, [0, 1, 1, 2, 2, 3], (0, 2), promise=promise).problems


def test_what_is_published_may_come_again() -> None:
    for routes, problems in ({"direct"}, 0), ({"group"}, 1):
        promise = Promise({LINE: 0}, echoed=frozenset(routes))
        found = books(3, [0, 1, 1, 1, 2], promise=promise)
        assert (found.doubled, len(found.problems)) == (2, problems)


def test_what_was_refused() -> None:
    unknown = [ACCEPTED, "ConnectionError", ACCEPTED]
    promise = Promise({LINE: 0}, refusals=frozenset({"ConnectionError", "ChannelFull"}))
    for got in [0, 2], [0, 1, 2]:  # nobody knows
        found = books(unknown, got, promise=promise)
        assert (found.sent, found.refused.total(), found.problems) == (2, 1, [])
    assert books(unknown, [0, 1, 1, 2], promise=promise).problems
    assert books(unknown, [0, 2]).problems  # not an error to expect
    assert books([ACCEPTED, "ChannelFull"], [0, 1], promise=promise).problems


def followed(got: list[int], gaps: list[int], most: int = 1) -> Verdict:
    """The verdict on a follower that was told of gaps after so many messages."""
    ledger = FollowersLedger()
    source = ledger.sources["s"] = Source("s", "group", [ACCEPTED] * 6)
    addressee = Addressee(LINE, [source], gaps=gaps)
    ledger.addressees.append(addressee)
    ledger.begin_outage()
    for number in got:
        addressee.note(("s", number), 0.0)
    return ledger.verdict(Promise({}, exempt=frozenset({"group"}), gaps=most))


def test_what_followers_miss_was_told() -> None:
    found = followed([0, 1, 4, 5], [2])
    assert (found.lost, found.bound, found.gaps, found.most_gaps) == (2, 2, 1, 1)
    assert not found.problems
    for got, gaps, most in (
        ([0, 1, 4, 5], [], 1),  # in an outage, and nobody said so
        ([0, 1, 4, 5], [3], 1),  # the gap is elsewhere
        ([0, 1, 4, 5], [2, 2], 1),  # twice
        ([0, 1, 2, 3, 4, 5], [2], 0),  # without a cause
        ([0, 1, 4, 4, 5], [2], 1),
    ):
        assert len(followed(got, gaps, most).problems) == 1


def test_sums_of_the_table() -> None:
    rest = ("0 (0)", "0", "0 (0)", "0.10 s")
    told = ("0 (0)", "0", "9 (12)", "0.10 s")
    rows = [
        ("cut, reset", "core", "10", "1671", "30", "666", "5 (430)", *rest),
        ("cut, closed", "core", "5", "400", "0", "398", "2 (215)", *rest),
        ("SCRIPT FLUSH", "core", "0", "365", "0", "365", "0 (0)", *rest),
        ("demoted, READONLY", "pubsub", "0", "16401", "433", "16401", "0 (0)", *rest),
        ("kill -9", "core, history", "3", "100", "0", "90", "10 (10)", *told),
    ]
    assert sums(rows) == [
        "core, all: 2,436 sent, 7 lost, 0 doubled, 0 overtaken, in 15 outages",
        "core, nothing may be lost: 365 sent, 0 lost, 0 doubled, 0 overtaken, "
        "in 0 outages",
        "core, outages: 2,071 sent, 7 lost, 0 doubled, 0 overtaken, in 15 outages",
        "core, history, all: 100 sent, 10 lost, 0 doubled, 0 overtaken, "
        "9 gaps told, in 3 outages",
        "core, history, outages: 100 sent, 10 lost, 0 doubled, 0 overtaken, "
        "9 gaps told, in 3 outages",
        "pubsub, a server refuses: 16,401 sent, 0 lost, 0 doubled, 0 overtaken, "
        "in 0 outages",
        "pubsub, all: 16,401 sent, 0 lost, 0 doubled, 0 overtaken, in 0 outages",
    ]
