"""Which commands, keys and channels a server's user may use."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

from redis import exceptions as errors

from ..commands.errors import is_connection_loss
from ..commands.publishing import CLASSIC, ask_for_sharded, verbs_by
from .finding import Finding, Level, grant
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
    "eval": "EVAL return 1 KEY",
    "evalsha": f"EVALSHA {'0' * 40} 1 KEY",
    "hset": "HSET KEY a 1",
    "hgetall": "HGETALL KEY",
    "hdel": "HDEL KEY a",
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
_QUOTED = re.compile("'[^']*'")  # names, in what servers say


def look_at_rights(
    server: Server, prefix: str, *, is_cluster: bool, is_pubsub: bool, is_sharded: bool
) -> Iterator[Finding]:
    """What the user lacks. `is_sharded`: as far as the server knows sharded Pub/Sub."""
    trial, user = _Trial(server, prefix), server.user
    lacking = trial.lacking({**_NEEDED, **(_OF_CLUSTERS if is_cluster else {})})
    if is_pubsub:
        lacking += trial.lacking_pubsub(is_sharded)
    if lacking:
        rights = list(dict.fromkeys(lacking))
        text = f"{user} lacks rights that the layer needs: {' '.join(rights)}"
        remedy = grant(server.name, user, *rights)
        yield Finding(Level.ERROR, "rights", server.name, text, remedy)
    else:
        text = f"{user} has all rights that the layer needs"
        yield Finding(Level.OK, "rights", server.name, text)
    for right, (call, consequence) in _WANTED.items():
        for missing in trial.lacking({right: call}):
            if missing not in lacking:
                text = f"without {missing}, {consequence}"
                remedy = grant(server.name, user, missing)
                yield Finding(Level.NOTE, "rights", server.name, text, remedy)


class _Trial:
    """Tries what a server's user may do, with a name of its own under a prefix."""

    def __init__(self, server: Server, prefix: str) -> None:
        self._server = server
        self._prefix = prefix
        self._name = f"{prefix}channels-redis-fast.check.{uuid.uuid4().hex}"

    def lacking(self, calls: dict[str, str]) -> list[str]:
        """The ACL rules that are missing for calls."""
        return [
            missing
            for right, call in calls.items()
            if (missing := self._missing(self._server.try_(*self._words(call)), right))
        ]

    def lacking_pubsub(self, is_sharded: bool) -> list[str]:
        """Those that are missing for Pub/Sub, of the kind that the server knows."""
        answer = self._server.try_(*ask_for_sharded(self._name))
        verbs = verbs_by(answer) if is_sharded else CLASSIC
        found = []
        for verb in verbs:  # on connections of their own, as SUBSCRIBE changes one
            payload = ("",) if verb == verbs.publish else ()
            reply = self._server.try_alone(verb, self._name, *payload)
            if missing := self._missing(reply, verb.decode().lower()):
                found.append(missing)
        return found

    def _words(self, call: str) -> list[str]:
        return [self._name if word == "KEY" else word for word in call.split()]

    def _missing(self, reply: Any, right: str) -> str | None:
        """The rule that a reply says is missing; raises what says nothing of rights."""
        if is_connection_loss(reply):
            raise reply
        if not isinstance(reply, errors.NoPermissionError):
            return None
        told = _QUOTED.sub("", str(reply))
        if "run the" in told:
            return f"+{right}"
        return f"{'&' if 'channel' in told else '~'}{self._prefix}*"
