"""This run is of what it says it is: no cell of the matrix tests another by mistake."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

import channels_redis_fast
from channels_redis_fast.wire import _envelope
from support import behaviours
from support.layers import opened
from support.peers import CORE
from support.servers import Server

VERSIONS = {"valkey": "9.", "redis62": "6.2.", "redis70": "7.0."}


def test_the_server(valkey: Server) -> None:
    info = valkey.client().info("server")
    found = info.get("valkey_version", info["redis_version"])
    assert found.startswith(VERSIONS[os.environ.get("TEST_SERVER", "valkey")])


async def test_the_loop() -> None:
    loop, expected = asyncio.get_running_loop(), os.environ.get("TEST_LOOP", "asyncio")
    assert type(loop).__module__.startswith(expected)
    assert loop.get_debug() == bool(os.environ.get("PYTHONASYNCIODEBUG"))
    made = asyncio.new_event_loop()
    made.close()
    assert type(made).__module__.startswith(expected)


def test_the_packages() -> None:
    for pin in os.environ.get("TEST_PACKAGES", "").split():
        name, _, wanted = pin.partition("==")
        assert f"{version(name)}.".startswith(wanted.removesuffix("*"))


def test_the_package_is_the_installed_one() -> None:
    """Where a wheel is tested, no other copy is imported."""
    folder = Path(channels_redis_fast.__file__).parent
    assert Path(_envelope.__file__).parent == folder / "wire"
    if os.environ.get("TEST_WHEEL"):
        assert Path(sys.prefix) in folder.parents


async def test_asserts_are_made(valkey: Server) -> None:
    """Under -O, too, as pytest rewrites those of tests and helpers."""
    with pytest.raises(AssertionError):
        assert valkey is None
    async with opened(valkey.url) as layer:
        await layer.send("worker", {"n": 2})  # the helper expects its own 1
        with pytest.raises(AssertionError):
            await behaviours.until_it_works(layer, "worker")


async def test_peers_run_as_we_do(
    valkey: Server, start_peer: Callable[..., asyncio.Future[object]]
) -> None:
    peer = await start_peer(CORE, {"hosts": [valkey.url]})
    ours = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    assert await peer.environment() == [
        ours,
        sys.flags.optimize,
        asyncio.get_running_loop().get_debug(),
        str(Path(channels_redis_fast.__file__)),
    ]
