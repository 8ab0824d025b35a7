"""Servers that refuse, and messages that can't be read: each is said, all goes on."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from behaviours import BEHAVIOURS, until_it_works
from layers import opened, soon
from polling import until
from programs import redis62
from redis import exceptions as errors
from servers import Server

from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.exceptions import InvalidSetting

# Servers that are too old


@pytest.mark.parametrize("missing", ["BZPOPMIN", "ZPOPMIN"])
async def test_a_server_without_our_commands(
    start_server: Callable[..., Server], missing: str
) -> None:
    server = start_server(options={"rename-command": f'{missing} ""'})
    async with opened(server.url) as layer:
        name = await layer.new_channel()
        for channel in (name, "worker"):
            with pytest.raises(errors.ResponseError, match=r"Redis 5\.0 or later"):
                await soon(layer, channel)


async def test_a_server_whose_scripts_may_not_ask_for_the_time(
    start_server: Callable[..., Server],
) -> None:
    """As Redis before 5.0, which replicated scripts and not their effects."""
    server = start_server(redis62(), options={"lua-replicate-commands": "no"})
    async with opened(server.url) as layer:
        name = await layer.new_channel()
        for call in (
            layer.send(name, {}),
            layer.send("worker", {}),
            layer.group_add("room", name),
        ):
            with pytest.raises(errors.ResponseError, match=r"Redis 5\.0 or later"):
                await call


# Servers that refuse: how they are brought to it, and back

Refusal = Callable[[Server], Iterator[None]]


def no_permission(server: Server) -> Iterator[None]:
    """The user may not do anything any more."""
    admin = server.client()
    admin.execute_command("ACL", "SETUSER", "alice", "nocommands")
    yield
    admin.execute_command("ACL", "SETUSER", "alice", "allcommands")


def no_keys(server: Server) -> Iterator[None]:
    """The user may not touch the prefix's keys any more."""
    admin = server.client()
    admin.execute_command("ACL", "SETUSER", "alice", "resetkeys", "~other*")
    yield
    admin.execute_command("ACL", "SETUSER", "alice", "~asgi*")


def no_user(server: Server) -> Iterator[None]:
    """The user is gone, and with it its connections."""
    admin = server.client()
    admin.acl_deluser("alice")
    yield
    admin.execute_command("ACL", "SETUSER", *ALICE.split())


def no_disk(server: Server) -> Iterator[None]:
    """The server can't save its data, and takes no more."""
    admin, in_the_way = server.client(), server.directory / "dump.rdb" / "full"
    in_the_way.mkdir(parents=True)
    admin.config_set("save", "900 1")
    admin.bgsave()
    until(lambda: _saved(admin) == "err", "the save to fail")
    yield
    in_the_way.rmdir()
    in_the_way.parent.rmdir()
    admin.bgsave()
    until(lambda: _saved(admin) == "ok", "the save to work")


def no_memory(server: Server) -> Iterator[None]:
    """The server's memory is full."""
    admin = server.client()
    admin.config_set("maxmemory", 1)
    yield
    admin.config_set("maxmemory", 0)


def _saved(admin: Any) -> str:
    return str(admin.info("persistence")["rdb_last_bgsave_status"])


def no_replica(server: Server) -> Iterator[None]:
    """The server wants a replica for what it is told, and has none."""
    admin = server.client()
    admin.config_set("min-replicas-to-write", 1)
    yield
    admin.config_set("min-replicas-to-write", 0)


ALICE = "alice on >secret ~asgi* &asgi* +@all"
REFUSALS: dict[str, tuple[Refusal, type[Exception], str]] = {
    "NOPERM": (no_permission, errors.NoPermissionError, "NOPERM|permission"),
    "NOPERM keys": (no_keys, errors.NoPermissionError, "NOPERM|permission"),
    "WRONGPASS": (no_user, errors.AuthenticationError, "username-password"),
    "MISCONF": (no_disk, errors.ResponseError, "MISCONF"),
    "OOM": (no_memory, errors.OutOfMemoryError, "OOM"),
    "NOREPLICAS": (no_replica, errors.ResponseError, "NOREPLICAS"),
}
