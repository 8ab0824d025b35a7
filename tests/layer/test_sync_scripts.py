"""Scripts that a server doesn't know, for callers without an event loop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from support.polling import until
from support.refusing import RefusingProxy
from support.servers import Server
from support.syncing import KINDS, blocking

pytestmark = pytest.mark.parametrize("kind", KINDS)


def test_scripts_that_are_gone(kind: str, server: Server) -> None:
    with blocking(kind, server.url) as layer:
        for n in range(3):
            server.client().script_flush()
            layer.sync.send("worker", {"n": n})
            server.client().script_flush()
            assert layer.sync.send_many([("worker", {"n": n})] * 3) == [None] * 3
        got = [layer.sync.receive("worker", 5)["n"] for _ in range(12)]
        assert got == [0] * 4 + [1] * 4 + [2] * 4


def test_a_script_that_was_refused_before_it_was_known(
    kind: str, server: Server
) -> None:
    """Redis refused its text, and later doesn't know its digest."""
    with (
        RefusingProxy(server) as proxy,
        blocking(kind, proxy.url) as layer,
        ThreadPoolExecutor() as executor,
    ):
        with proxy.refusing("BUSY with somebody's script"):
            sending = executor.submit(layer.sync.send, "worker", {"n": 1})
            until(lambda: proxy.requests.refused > 3, "attempts")
        sending.result()
        assert layer.sync.receive("worker", 5) == {"n": 1}
