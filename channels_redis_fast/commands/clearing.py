"""What is said when a group is cleared: to Redis, and to its members' processes."""

from __future__ import annotations

from ..wire._fanout import bundle
from ..wire.reserved import CLEAR
from .operations import Operations, Request, Sealed
from .scripts import CLEAR_GROUP, number

_UNBOUNDED = number(1 << 31)  # messages: a full process has to know, too


def members_of(operations: Operations, group: str) -> Request:
    """Asks for a group's members, also for those that are too old."""
    key = operations.group_key(group)
    return operations.shard_of(group), (b"ZRANGE", key, b"0", b"-1")


def clear(operations: Operations, group: str) -> Request:
    """Takes all members out of a group; the reply is who they were."""
    return operations.shard_of(group), CLEAR_GROUP.on(operations.group_key(group))


def notices(operations: Operations, group: str, members: list[bytes]) -> list[Request]:
    """Tells each process that had members of a group that they may be out of it.

    The message is for none of its channels, so processes that don't know of it drop it.
    """
    body = operations.codec.body({CLEAR: group})
    names = (name.decode("utf-8", "replace") for name in bundle(members))
    return [_notice(operations, body, name) for name in names if name.endswith("!")]


def _notice(operations: Operations, body: object, non_local: str) -> Request:
    key = operations.channel_key(non_local)
    member = operations.codec.seal_list(body, [], key)
    shard = operations.shard_of(non_local)
    return operations.store([Sealed(shard, key, member, _UNBOUNDED)])
