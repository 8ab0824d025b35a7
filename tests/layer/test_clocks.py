"""The clock that tokens and frames are stamped and checked by."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.exceptions import UnreadableMessage
from channels_redis_fast.pubsub import RedisPubSubChannelLayer
from channels_redis_fast.wire._aead import AesGcmFrames
from channels_redis_fast.wire._framing import FernetFrames
from support.layers import soon
from support.programs import needs
from support.servers import Server

CONTEXTS = {FernetFrames: (), AesGcmFrames: (b"asgispecific.0123456789abcdef!",)}


@pytest.mark.parametrize("offset", [-90, 90])
@pytest.mark.parametrize("make", CONTEXTS)
def test_frames_of_another_clock(make: Callable[..., Any], offset: int) -> None:
    context = CONTEXTS[make]
    here, there = make(["a key"]), make(["a key"])
    there.clock_offset = offset
    sealed = there.seal(b"payload", *context)
    assert there.open(sealed, *context, 0.5) == b"payload"
    with pytest.raises(UnreadableMessage, match=r"older|future"):
        here.open(sealed, *context, 50)
    with pytest.raises(UnreadableMessage, match=r"older|future"):
        there.open(here.seal(b"payload", *context), *context, 50)


# Processes whose clocks are wrong

PROGRAM = """if True:
    import asyncio
    from channels_redis_fast.{module} import {name} as Layer

    layer = Layer(**{config!r})

    async def go():
        await layer.send("to.right", {{"n": 1}})
        return await asyncio.wait_for(layer.receive("to.wrong"), 10)

    print(asyncio.run(go())["n"])
    layer.sync.send("to.right", {{"n": 2}})
    print(layer.sync.receive("to.wrong", timeout=10)["n"])
"""


@pytest.mark.needs("faketime")
@pytest.mark.parametrize("offset", [-90, pytest.param(90, marks=pytest.mark.slow)])
@pytest.mark.parametrize("encryption", ["fernet", "aes-gcm"])
@pytest.mark.parametrize(
    "make",
    [RedisChannelLayer, pytest.param(RedisPubSubChannelLayer, marks=pytest.mark.slow)],
)
async def test_processes_of_other_clocks(
    valkey: Server, make: Callable[..., Any], encryption: str, offset: int
) -> None:
    config = {
        "hosts": [valkey.url],
        "symmetric_encryption_keys": ["a key"],
        "encryption": encryption,
    }
    layer = make(**config)
    await layer.send("to.wrong", {"n": 3})
    await layer.send("to.wrong", {"n": 4})
    module, name = make.__module__.rpartition(".")[2], make.__name__
    program = PROGRAM.format(module=module, name=name, config=config)
    wrong = await asyncio.create_subprocess_exec(
        *(needs("faketime"), "-f", f"{offset:+}s", sys.executable, "-c", program),
        env={**os.environ, "DONT_FAKE_MONOTONIC": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await asyncio.wait_for(wrong.communicate(), 60)
    assert told.split() == [b"3", b"4"]
    for n in (1, 2):
        assert (await soon(layer, "to.right"))["n"] == n
    assert layer.counters == {}
    await layer.close_pools()
