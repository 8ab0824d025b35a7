"""When a command is tried again, and for how long: no server, no clock."""

from __future__ import annotations

import pytest
from redis import exceptions as errors

from channels_redis_fast.commands.errors import reply_error
from channels_redis_fast.commands.retry import Retry, not_overtaken
from channels_redis_fast.commands.scripts import JOIN, MEMBERS, PUT_BACK, SEND, as_known

STORE = SEND.on(b"key", b"member", 1, 60)
LOST = errors.ConnectionError("lost")
READONLY = reply_error("READONLY a replica")


def retry(command: tuple[object, ...] = STORE) -> Retry:
    """A call that began at 100, and has 5 seconds."""
    return Retry(command, 100.0, 105.0)


def test_pauses_grow_until_the_deadline() -> None:
    one, now, pauses = retry(), 100.0, []
    while (pause := one.after(reply_error("LOADING data"), now)) is not None:
        pauses.append(pause)
        now += pause
    assert pauses[:5] == [0.05, 0.1, 0.2, 0.4, 0.5]
    assert 104.5 <= now < 105


def test_what_may_run_twice_is_written_twice() -> None:
    assert retry(STORE).after(LOST, 100.1) is None
    assert retry(PUT_BACK.on(b"key", 60)).after(LOST, 100.1) is None
    for command in JOIN.on("g", 1, "c"), MEMBERS.on("g", 1), (b"ZREM", "g", "c"):
        one = retry(command)
        assert one.after(LOST, 100.1) == 0
        assert one.after(LOST, 100.2) is None
        assert retry(command).after(LOST, 105.0) is None  # it was silent


def test_a_primary_may_come_while_nothing_is_written() -> None:
    one = retry()
    assert one.after(READONLY, 100.0) is not None
    assert one.after(LOST, 100.1, written=False) is not None
    assert one.after(LOST, 104.99, written=False) is None
    assert one.error is READONLY
    assert one.after(LOST, 100.2) is None  # it may have run
    assert one.error is LOST


def test_a_replica_that_never_was_a_primary() -> None:
    assert retry().after(READONLY, 100.5, stranger=True) is not None
    assert retry().after(READONLY, 101.0, stranger=True) is None
    assert retry().after(reply_error("LOADING"), 101.0, stranger=True) is not None


def test_a_server_that_forgot_a_script_gets_its_text() -> None:
    one = retry()
    for _ in range(5):
        assert one.after(reply_error("LOADING data"), 100.0)
    # Another one may bring the text along: one for many.
    assert one.after(reply_error("NOSCRIPT no"), 100.0) == 0
    assert one.command is STORE
    assert one.after(reply_error("NOSCRIPT no"), 100.0) == 0
    assert one.command == (b"EVAL", SEND.text, *STORE[2:])


def test_a_server_that_refused_a_script_before_it_knew_it() -> None:
    """And what follows the script, for the same key, is tried again with it."""
    one, follower = retry(), retry((b"ZREM", b"key", b"member"))
    for _ in range(5):
        assert one.after(reply_error("BUSY somebody's script"), 100.0)
        assert follower.after(reply_error("BUSY somebody's script"), 100.0)
    assert one.after(reply_error("NOSCRIPT no"), 100.0) == 0
    assert follower.after(reply_error("NOSCRIPT no"), 100.0) is not None


@pytest.mark.parametrize("text", ["MOVED 1 h:1", "ASK 1 h:1"])
def test_nodes_that_redirect_to_each_other(text: str) -> None:
    one, error = retry(), reply_error(text)
    pauses = [one.after(error, 100.0, is_cluster=True) for _ in range(6)]
    assert pauses[:3] == [0, 0, 0]
    assert all(pauses[3:])
    assert retry().after(error, 100.0) is None  # where there are no nodes


@pytest.mark.parametrize("text", ["MOVED 1 h:1", "ASK 1 h:1"])
def test_the_new_owner_is_asked_at_once(text: str) -> None:
    """However often nobody had the slot before."""
    one = retry()
    for _ in range(5):
        assert one.after(reply_error("CLUSTERDOWN no"), 100.0, is_cluster=True)
    pauses = [one.after(reply_error(text), 101.0, is_cluster=True) for _ in range(4)]
    assert pauses == [0, 0, 0, 0.5]


@pytest.mark.parametrize("text", ["ERR no", "NOPERM no", "WRONGTYPE no", "OOM no"])
def test_errors_of_the_caller(text: str) -> None:
    error = reply_error(text)
    one = retry()
    assert one.after(error, 100.0) is None
    assert one.error is error


def test_what_was_overtaken() -> None:
    commands = [(b"ZREM", key) for key in "aabbc"]
    replies = [LOST, 1, 1, LOST, LOST]
    assert not_overtaken(commands, replies) == [3, 4]


def test_the_first_call_of_a_script_has_its_text() -> None:
    known: set[bytes] = set()
    assert as_known(STORE, known)[0] == b"EVAL"
    assert as_known(STORE, known) is STORE
    assert as_known((b"ZREM", "g", "c"), known) == (b"ZREM", "g", "c")
