"""What members of a group may notice of a failover: a pause."""

from __future__ import annotations

import asyncio

import pytest

from support.crowds import Crowd, Sender
from support.polling import eventually

LIMIT = 1.0  # seconds


async def goes_on(
    crowd: Crowd, sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    """Called at the promotion: messages come again, and from now on all of them."""
    loop = asyncio.get_running_loop()
    began, promoted = loop.time(), sender.number
    await eventually(
        lambda: all(got and got[-1] > promoted for got in crowd.got), "a message"
    )
    assert loop.time() - began < LIMIT
    await eventually(lambda: is_back(caplog), "the log line")
    back = sender.number
    await sender.accepts(100)
    await eventually(lambda: crowd.all_got(sender.since(back)), "what was accepted")
    crowd.check()


def is_back(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether the last that the layer said is that it is connected."""
    said = [m for m in caplog.messages if " is gone: " in m or m.endswith(" is back")]
    return bool(said) and said[-1].endswith("is back")
