"""How long a connection that was lost waits before it is tried again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import exceptions as errors

from channels_redis_fast.client import reconnecting
from channels_redis_fast.client.connection import PipelinedConnection
from channels_redis_fast.client.reconnecting import ReconnectingConnection, pause_after
from support.polling import eventually


@pytest.fixture(params=[0.5, 1.0])
def jitter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """The least and the most of what a fleet is spread over."""

    class Random:
        @staticmethod
        def uniform(least: float, most: float) -> float:
            assert (least, most) == (0.5, 1.0)
            return float(request.param)

    monkeypatch.setattr(reconnecting, "random", Random)
    return float(request.param)


def test_pauses_grow_up_to_half_a_second(jitter: float) -> None:
    pauses = [pause_after(failures, 1.0) / jitter for failures in range(7)]
    assert pauses == [0.0, 0.05, 0.1, 0.2, 0.4, 0.5, 0.5]
    assert pause_after(10**6, 30.0) / jitter == 0.5


def test_they_are_longer_when_it_takes_long(jitter: float) -> None:
    assert pause_after(0, 31.0) == 0.0
    assert pause_after(1, 31.0) / jitter == 2.0
    assert pause_after(10**6, 31.0) / jitter == 2.0


async def test_they_are_short_after_a_primary_is_demoted() -> None:
    """Also when the next one is not to be reached at first."""
    loop, tried = asyncio.get_running_loop(), [0.0]

    async def open_() -> PipelinedConnection:
        tried.append(loop.time())
        if len(tried) > 2:
            raise errors.ConnectionError("no Sentinel names a primary")
        return PipelinedConnection(loop, deadline=5.0)

    link: Any = ReconnectingConnection(open_)
    await link.get()
    link.up_since -= 60.0  # it has been up for long
    link.reopen(errors.ReadOnlyError("a replica by now"))
    await eventually(lambda: len(tried) > 3, "two attempts")
    # A pause of 0.1 s at most, where one of 2 s would be 1 s at least.
    assert link._not_before - tried[-1] < 1.0
    await link.aclose()
