"""What Sentinels say: where a primary is, or why none of them names one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis
from redis.asyncio.sentinel import Sentinel
from redis.sentinel import MasterNotFoundError

_LONGEST_REASON = 120  # characters


class AskedSentinels(Sentinel):
    """redis-py's, whose error shows no connection argument, and why each one failed."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The primary's address; raises `MasterNotFoundError`."""
        reasons: dict[tuple[str, int], str] = {}
        for position, client in enumerate(self.sentinels):
            try:
                masters = await client.sentinel_masters()
                found = primary_of(masters, service_name, self.check_master_state)
            except (redis.RedisError, OSError) as error:
                reasons[sentinel_address(client)] = str(error)
                continue
            self.sentinels.insert(0, self.sentinels.pop(position))
            return found
        raise not_found(service_name, reasons)


def primary_of(masters: Any, name: str, is_good: Any) -> tuple[str, int]:
    """The address of a primary, by what a Sentinel knows."""
    state = masters.get(name)
    if state is None:
        raise redis.ResponseError(f"it knows no {name!r}")
    if not is_good(state, name):
        raise redis.ResponseError(f"{name!r} is down, it says, or seen by too few")
    return state["ip"], int(state["port"])


def not_found(name: str, reasons: Mapping[tuple[str, int], str]) -> MasterNotFoundError:
    """The error when none of the Sentinels names one, and why each doesn't; short."""
    told = "; ".join(
        f"{host}:{port}: {reason[:_LONGEST_REASON]}"
        for (host, port), reason in reasons.items()
    )
    return MasterNotFoundError(f"no Sentinel names a primary for {name!r}: {told}")


def sentinel_address(client: Any) -> tuple[str, int]:
    """Where a client of a Sentinel connects to."""
    arguments = client.connection_pool.connection_kwargs
    return arguments["host"], int(arguments["port"])
