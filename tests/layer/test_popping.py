"""A blocking pop: what becomes of what nobody wants, and when it ends."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.mailboxes.dropped import DropCounters
from channels_redis_fast.polling.pops import Pop
from channels_redis_fast.runtime.popping import Popper
from support.polling import until
from support.servers import Server

KEY = b"asgiworker"


def popper(counters: DropCounters, *servers: Server) -> tuple[Any, Popper]:
    """One for a key, and the connections that it uses."""
    layer: Any = RedisChannelLayer(hosts=[server.url for server in servers])
    blocking, operations = layer._blocking, layer._operations
    shards = blocking.shards
    return blocking, Popper(shards, KEY, operations, counters, 5.0, lambda: None)


def test_what_is_put_back_is_there(valkey: Server) -> None:
    counters = DropCounters()
    blocking, one = popper(counters, valkey)
    valkey.client().script_flush()
    score = float(int(time.time()) + 60)  # too old it would be dropped
    one._put_back(blocking.shards[0], (b"member", b"%d" % score))
    assert valkey.client().zrange(KEY, 0, -1, withscores=True) == [(b"member", score)]
    assert counters.snapshot() == {}
    blocking.close()


def test_what_cannot_be_put_back_is_counted(valkey: Server) -> None:
    counters = DropCounters()
    blocking, one = popper(counters, valkey)
    valkey.client().set(KEY, "no sorted set")
    one._put_back(blocking.shards[0], (b"member", b"1.5"))
    assert counters.snapshot() == {"lost while being put back": 1}
    blocking.close()


def test_who_was_served_by_others_waits_no_more(valkey: Server) -> None:
    served = iter([False, False, True])
    blocking, one = popper(DropCounters(), valkey)
    began = time.monotonic()
    assert one.pop(None, lambda: next(served)) is None
    assert time.monotonic() - began < 30
    blocking.close()


def test_who_was_served_meanwhile_waits_no_more(valkey: Server) -> None:
    """Though its server is silent for long: the message was put back by another."""
    served = threading.Event()
    blocking, one = popper(DropCounters(), valkey)
    one._longest = 60
    with ThreadPoolExecutor(1) as pool:
        popping = pool.submit(one.pop, None, served.is_set)
        until(lambda: any("b" in c["flags"] for c in valkey.clients()), "the wait")
        served.set()
        assert popping.result(20) is None
    blocking.close()


def test_a_second_exception_loses_nothing(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One comes while the waits are ended, after another, or after a message."""
    blocking, one = popper(DropCounters(), valkey)

    def interrupt() -> None:
        raise KeyboardInterrupt

    for wanted in 0, 1:
        valkey.client().delete(KEY)
        score = b"%d" % (time.time() + 60)
        (wait,) = one._waits
        monkeypatch.setattr(wait, "end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            one._end([(wait, (b"member", score))], wanted)
        monkeypatch.undo()
        assert valkey.client().zrange(KEY, 0, -1) == [b"member"]
    blocking.close()


def test_a_second_exception_loses_nothing_of_other_hosts(
    valkey: Server, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they popped is on its way while the first one's wait is ended."""
    blocking, one = popper(DropCounters(), valkey, server)
    one._begin(None)
    until(lambda: any("b" in c["flags"] for c in server.clients()), "the wait")
    server.client().zadd(KEY, {"member": time.time() + 60})
    assert not server.client().exists(KEY)
    first, end = one._waits[0], one._waits[0].end

    def interrupt() -> None:
        monkeypatch.setattr(first, "end", end)
        raise KeyboardInterrupt

    monkeypatch.setattr(first, "end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        one._end([], 0)
    assert server.client().zrange(KEY, 0, -1) == [b"member"]
    blocking.close()


def test_an_exception_while_others_are_put_back(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that the caller would have got goes back, too."""
    blocking, one = popper(DropCounters(), valkey)
    score = b"%d" % (time.time() + 60)
    found = [(one._waits[0], (member, score)) for member in (b"wanted", b"other")]

    def interrupt(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(one, "_put_back", interrupt)
    with pytest.raises(KeyboardInterrupt):
        one._end(found, 1)
    assert b"wanted" in valkey.client().zrange(KEY, 0, -1)
    blocking.close()


@pytest.mark.parametrize("reply", [b"OK", 1, [[b"member", 1.0]], {b"a": b"b"}])
async def test_a_reply_of_another_shape_is_an_error(reply: Any) -> None:
    """Of the caller who waits; the pop is over all the same."""
    seen: list[Any] = []
    pop = Pop(2, lambda *about: seen.append(about), asyncio.get_running_loop())
    pop.set_result([KEY, b"member", b"1"])
    pop.set_result(reply)
    ((entries, error),) = seen
    assert entries == [(b"member", b"1")]
    assert isinstance(error, errors.InvalidResponse)
    assert repr(reply)[:5] in str(error)
