"""A blocking pop: what becomes of what nobody wants, and when it ends."""

from __future__ import annotations

import time
from typing import Any

from servers import Server

from channels_redis_fast._blocking import Blocking
from channels_redis_fast._counters import Counters
from channels_redis_fast._hosts import decode_hosts
from channels_redis_fast._popping import Popper

KEY = b"asgiworker"


def popper(server: Server, counters: Counters, **options: Any) -> tuple[Any, Popper]:
    """One for a key, and the connections that it uses."""
    blocking = Blocking(decode_hosts([server.url], 5.0), lambda *about: None)
    return blocking, Popper(blocking.shards, KEY, counters, 5.0, 60.0, **options)


def test_what_is_put_back_is_there(valkey: Server) -> None:
    counters = Counters()
    blocking, one = popper(valkey, counters)
    valkey.client().script_flush()
    score = float(int(time.time()) + 60)  # too old it would be dropped
    one._put_back(blocking.shards[0], b"member", b"%d" % score)
    assert valkey.client().zrange(KEY, 0, -1, withscores=True) == [(b"member", score)]
    assert counters.snapshot() == {}
    blocking.close()


def test_what_cannot_be_put_back_is_counted(valkey: Server) -> None:
    counters = Counters()
    blocking, one = popper(valkey, counters)
    valkey.client().set(KEY, "no sorted set")
    one._put_back(blocking.shards[0], b"member", b"1.5")
    assert counters.snapshot() == {"lost while being put back": 1}
    blocking.close()


def test_who_was_served_by_others_waits_no_more(valkey: Server) -> None:
    served = iter([False, False, True])
    blocking, one = popper(valkey, Counters(), is_served=lambda: next(served))
    began = time.monotonic()
    assert one.pop(None) is None
    assert time.monotonic() - began < 30
    blocking.close()
