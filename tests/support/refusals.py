"""How a server comes to refuse what it is asked, and how it takes it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import exceptions as errors

from support.polling import until
from support.servers import Server, free_port

# Brings the server to it, and, continued, back.
Refusal = Callable[[Server], Iterator[None]]


def no_disk(server: Server) -> Iterator[None]:
    """The server can't save its data, and takes no more: MISCONF."""
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
    # Else the next one's directory can't take the file's place.
    in_the_way.parent.unlink()


def _saved(admin: Any) -> str:
    return str(admin.info("persistence")["rdb_last_bgsave_status"])


def no_replica(server: Server) -> Iterator[None]:
    """The server wants a replica for what it is told, and has none: NOREPLICAS."""
    admin = server.client()
    admin.config_set("min-replicas-to-write", 1)
    yield
    admin.config_set("min-replicas-to-write", 0)


def no_primary(server: Server) -> Iterator[None]:
    """The server is the replica of one that isn't there: READONLY."""
    admin = server.client()
    admin.replicaof(server.host, free_port())
    yield
    admin.replicaof("NO", "ONE")


def no_time(server: Server) -> Iterator[None]:
    """The server runs a script until that is killed: BUSY."""
    # The name of busy-reply-threshold before Redis 7, which is still understood.
    server.client().config_set("lua-time-limit", 1)
    with ThreadPoolExecutor(1) as thread:
        script = thread.submit(_run_for_ever, server)
        try:
            until(lambda: _is_busy(server), "the script")
            yield
        finally:
            server.client().script_kill()
        script.result()


def _run_for_ever(server: Server) -> None:
    with pytest.raises(errors.ResponseError, match="killed"):
        server.client().eval("while true do end", 0)


def _is_busy(server: Server) -> bool:
    try:
        server.client().ping()
    except errors.ResponseError:
        return True
    return False
