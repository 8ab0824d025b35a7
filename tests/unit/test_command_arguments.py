"""Commands have no numbers: hiredis crashes where a signal handler raises meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import hiredis
import pytest

from support.layers import soon
from support.servers import Server
from support.syncing import KINDS

PACK = hiredis.pack_command


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The commands that were packed, each of bytes and str alone."""
    commands: list[Any] = []

    def pack(command: Any) -> Any:
        commands.append(command)
        return PACK(command)

    monkeypatch.setattr(hiredis, "pack_command", pack)
    yield commands
    bad = [c for c in commands if not all(isinstance(a, (bytes, str)) for a in c)]
    assert commands
    assert not bad


def words(commands: list[Any]) -> set[bytes]:
    return {command[0] for command in commands}


@pytest.mark.parametrize("options", [{}, {"confirm_sends": False}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
async def test_awaited(
    valkey: Server, kind: str, options: dict[str, Any], packed: list[Any]
) -> None:
    layer: Any = KINDS[kind](hosts=[valkey.url], expiry=9.5, **options)
    name = await layer.new_channel()
    await layer.group_add("room", name)
    await layer.send(name, {})
    await layer.group_send("room", {})
    await layer.send_many([("worker", {}), (name, {})])
    await layer.group_send_many([("room", {})])
    for channel in name, name, name, name, "worker":
        await soon(layer, channel)
    with contextlib.suppress(asyncio.TimeoutError):  # its wait is ended
        await asyncio.wait_for(layer.receive("worker"), 0.2)
    await layer.group_discard("room", name)
    await layer.flush()
    await layer.close_pools()
    assert words(packed) >= {b"BZPOPMIN", b"CLIENT", b"SCAN"}


async def test_put_back_and_refreshed(valkey: Server, packed: list[Any]) -> None:
    """What is seldom written: PUT_BACK, and memberships that are made new."""
    layer: Any = KINDS["core"](hosts=[valkey.url], group_expiry=1, prefetch=10)
    name = await layer.new_channel()
    await layer.group_add("room", name)
    await layer.send_many([("worker", {})] * 5)
    await soon(layer, "worker")
    await layer.close_pools()  # four go back
    assert valkey.client().zcard("asgiworker") == 4


@pytest.mark.parametrize("kind", KINDS)
def test_blocking(valkey: Server, kind: str, packed: list[Any]) -> None:
    layer: Any = KINDS[kind](hosts=[valkey.url])
    sync = layer.sync
    sync.send_many([("worker", {}), ("worker", {})])
    sync.send("worker", {})
    sync.group_send("room", {})
    sync.group_send_many([("room", {})])
    assert sync.receive("worker", timeout=5) == {}
    with pytest.raises(TimeoutError):
        sync.receive("other", timeout=0.1)
    if kind == "core":
        name = sync.new_channel()
        sync.group_add("room", name)
        sync.group_send("room", {})
        assert sync.receive(name, timeout=5) == {}
        sync.group_discard("room", name)
    sync.flush()
    sync.close()
    assert words(packed) >= {b"BZPOPMIN", b"CLIENT", b"SCAN"}
