"""Which commands, keys and channels a server's user may use."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from redis import exceptions as errors

from ..commands.errors import is_connection_loss
from .finding import Finding, Level
from .server import Server

# What everybody needs, as docs/hosts.md has it, and a call that shows whether it is
# allowed; KEY is a sorted set of our own, which lives for a moment. Whatever else the
# call answers is all right: who may not gets NOPERM first.
_NEEDED = {
    "zadd": "ZADD KEY 1 a 2 b 3 c 4 d 5 e",
    "expire": "EXPIRE KEY 10",
    "zcard": "ZCARD KEY",
    "zcount": "ZCOUNT KEY 0 1",
    "zrange": "ZRANGE KEY 0 0",
    "zrevrange": "ZREVRANGE KEY 0 0",
    "zscore": "ZSCORE KEY a",
    "zrem": "ZREM KEY a",
    "zremrangebyscore": "ZREMRANGEBYSCORE KEY 2 2",
    "zpopmin": "ZPOPMIN KEY 2",
    "bzpopmin": "BZPOPMIN KEY 0.01",
    "eval": "EVAL return 0",
    "evalsha": "EVALSHA 0 0",
    "time": "TIME",
    "ping": "PING",
    "client|id": "CLIENT ID",
    "client|unblock": "CLIENT UNBLOCK 0",
}
_WANTED = {
    "info": ("INFO server", "a reconnect may bring back what others flushed"),
    "scan": ("SCAN 0 COUNT 1", "flush() can't find keys"),
    "unlink": ("UNLINK KEY", "flush() can't delete keys"),
}
_OF_CLUSTERS = {"cluster|slots": "CLUSTER SLOTS", "asking": "ASKING"}
# And these, which are tried on connections of their own.
_CLASSIC = {
    "publish": "PUBLISH",
    "subscribe": "SUBSCRIBE",
    "unsubscribe": "UNSUBSCRIBE",
}
_SHARDED = {
    "spublish": "SPUBLISH",
    "ssubscribe": "SSUBSCRIBE",
    "sunsubscribe": "SUNSUBSCRIBE",
}


def look_at_rights(
    server: Server, prefix: str, *, is_cluster: bool, is_pubsub: bool, is_sharded: bool
) -> Iterator[Finding]:
    """What the user lacks. `is_sharded`: as far as the server knows sharded Pub/Sub."""
    name = f"{prefix}channels-redis-fast.check.{uuid.uuid4().hex}"
    needed = {**_NEEDED, **(_OF_CLUSTERS if is_cluster else {})}
    lacking = _lacking(server, needed, name, prefix)
    if is_pubsub:
        lacking += _lacking_pubsub(server, is_sharded, name, prefix)
    if lacking:
        rights = " ".join(dict.fromkeys(lacking))
        text = f"{_user(server)} lacks rights that the layer needs: {rights}"
        remedy = f"redis-cli ACL SETUSER {_user(server)} {rights}"
        yield Finding(Level.ERROR, "rights", server.name, text, remedy)
    else:
        text = f"{_user(server)} has all rights that the layer needs"
        yield Finding(Level.OK, "rights", server.name, text)
    for right, (call, consequence) in _WANTED.items():
        for missing in _lacking(server, {right: call}, name, prefix):
            if missing not in lacking:
                text = f"without {missing}, {consequence}"
                remedy = f"redis-cli ACL SETUSER {_user(server)} {missing}"
                yield Finding(Level.NOTE, "rights", server.name, text, remedy)


def _lacking(
    server: Server, calls: dict[str, str], name: str, prefix: str
) -> list[str]:
    found = []
    for right, call in calls.items():
        words = [name if word == "KEY" else word for word in call.split()]
        if words[0] == "EVAL":
            words = ["EVAL", "return 0", "1", name]
        elif words[0] == "EVALSHA":
            words = ["EVALSHA", "0" * 40, "1", name]
        if missing := _refused(server.try_(*words), right, prefix):
            found.append(missing)
    return found


def _lacking_pubsub(
    server: Server, is_sharded: bool, name: str, prefix: str
) -> list[str]:
    found = []
    is_known = "unknown command" not in str(server.try_("SPUBLISH", name, ""))
    for right, verb in (_SHARDED if is_sharded and is_known else _CLASSIC).items():
        payload = ("",) if verb.endswith("PUBLISH") else ()
        reply = server.try_alone(verb, name, *payload)
        if missing := _refused(reply, right, prefix):
            found.append(missing)
    return found


def _refused(reply: Any, right: str, prefix: str) -> str | None:
    """The ACL rule that is missing, by a reply; None: none is.

    Raises what says nothing of that.
    """
    if is_connection_loss(reply):
        raise reply
    if not isinstance(reply, errors.NoPermissionError):
        return None
    text = str(reply)
    if "channel" in text and "command" not in text:
        return f"&{prefix}*"
    if "key" in text and "command" not in text:
        return f"~{prefix}*"
    return f"+{right}"


def _user(server: Server) -> str:
    reply = server.try_("ACL", "WHOAMI")
    return reply.decode() if isinstance(reply, bytes) else "the user"
