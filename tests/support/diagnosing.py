"""What `channel_layer check` finds, for tests."""

from __future__ import annotations

import shlex
from typing import Any

from channels_redis_fast.commands import publishing
from channels_redis_fast.diagnosis.diagnose import diagnose
from channels_redis_fast.diagnosis.finding import Finding, Level
from channels_redis_fast.diagnosis.rights import _NEEDED, look_at_rights
from channels_redis_fast.diagnosis.server import Server
from support.servers import Server as Process
from support.syncing import blocking

NEEDED = [f"+{right}" for right in _NEEDED]
CLASSIC = [f"+{verb.decode().lower()}" for verb in publishing.CLASSIC]
ENOUGH = ["~asgi*", "&asgi*", *NEEDED, "+info", "+scan", "+unlink"]


def findings(*hosts: Any, kind: str = "core", **options: Any) -> list[Finding]:
    """All that is found about a layer on these hosts."""
    with blocking(kind, *hosts, **options) as layer:
        found = diagnose("default", layer)
    for one in found:
        assert one.text
        needs_remedy = one.level in (Level.WARNING, Level.ERROR)
        assert one.remedy or not needs_remedy, one
    return found


def rights_of(host: Any, kind: str = "core") -> list[Finding]:
    """What is found about the rights of a user."""
    with blocking(kind, host) as layer:
        (pool,) = layer._blocking.shards[0].primaries(0.0)
        return list(
            look_at_rights(
                Server(pool, 5.0),
                layer.prefix,
                is_cluster=False,
                is_pubsub=kind == "pubsub",
                is_sharded=False,
            )
        )


def amiss(found: list[Finding]) -> dict[str, str]:
    """The topics that are not well, with their levels."""
    return {one.topic: one.level.value for one in found if one.level != Level.OK}


def about(found: list[Finding], topic: str) -> Finding:
    """The one finding about a topic."""
    (one,) = (one for one in found if one.topic == topic)
    return one


def follow(remedy: str, server: Process) -> None:
    """Does what a remedy says, as who pastes it into a shell."""
    program, flag, url, *words = shlex.split(remedy, comments=True)
    assert (program, flag, url) == ("redis-cli", "-u", server.url)
    server.client().execute_command(*words)


def limited(server: Server, *rules: str) -> dict[str, Any]:
    """A user with these rights; the entry of `hosts` for it."""
    words = ["limited", "reset", "on", ">secret", "resetchannels", *rules]
    server.client().execute_command("ACL", "SETUSER", *words)
    user = {"username": "limited", "password": "secret"}
    return {"host": server.host, "port": server.port, **user}
