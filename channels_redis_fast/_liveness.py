"""The methods of both layers that tell who lives, and their blocking twins."""

from __future__ import annotations

import os
import socket
from time import monotonic
from typing import Any, NoReturn

from ._base import BaseRedisLayer
from ._version import __version__
from .commands.census import without
from .commands.errors import value_of
from .commands.liveness import decode_info, last_beats
from .exceptions import NotSupported
from .runtime.base_engine import Engine
from .runtime.blocking_engine import BlockingEngine, run_without_loop
from .runtime.heartbeat import Heartbeat
from .runtime.loops import weakly
from .runtime.memberships import Memberships
from .types import Process

# What runs a call's commands, and when the call began (`time.monotonic()`).
Informed = tuple[Engine, float]


class Liveness(BaseRedisLayer):
    """What a layer tells of its processes and of who is in a group."""

    async def group_members(self, group: str) -> list[str]:
        """The channels in a group whose processes live, by when they joined.

        Or were refreshed, which counts as joining anew.
        A process that was silent for `liveness` seconds doesn't count. Those of which
        nothing is known do: channels_redis says nothing. Raises `TypeError` for a bad
        name.
        """
        self.require_valid_group_name(group)
        members, silent = await self._census(await self._informed(), group)
        return [
            name.decode("utf-8", "replace")
            for name in without(members, frozenset(silent))
        ]

    async def group_count(self, group: str) -> int:
        """How many channels `group_members` would name; quick for large groups."""
        self.require_valid_group_name(group)
        engine, began = informed = await self._informed()
        operations = self._operations
        key, words = operations.group_key(group), operations.liveness
        if words.census.may_have_silent(key, monotonic()):
            members, silent = await self._census(informed, group)
            return len(members) - len(silent)
        request = operations.shard_of(group), words.count(key)
        count: int = await engine.run(request, began)
        return count

    async def processes(self) -> list[Process]:
        """The processes that use this layer and live, by their ids.

        With an event loop they beat every `liveness` / 3 seconds; else when they call.
        """
        engine, began = await self._informed()
        words = self._operations.liveness
        requests = [(words.home, command) for command in words.living()]
        replies = await engine.run_all(requests, began)
        names, infos = map(value_of, replies)
        found = dict(zip(infos[::2], infos[1::2], strict=True))
        beats = sorted(last_beats(names).items())
        processes = [self._process(one, at, found.get(one)) for one, at in beats]
        return [one for one in processes if one is not None]

    # The heartbeat

    def _about(self) -> dict[str, Any]:
        """What others are told of this process with each beat; see `Process`."""
        return {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "version": __version__,
            "formats": [self._settings.serializer_format],
        }

    def _make_heartbeat(self, memberships: Memberships) -> Heartbeat:
        words, about = self._operations.liveness, weakly(self._about)
        return Heartbeat(words, self.client_prefix, memberships, about)

    def _beat_when_due(self) -> None:
        """For callers that block: it takes a quarter of their time at most."""
        if self._heartbeat.is_due:
            engine = BlockingEngine(self._blocking, self.command_timeout / 4)
            run_without_loop(self._heartbeat.tend(engine))

    # Steps

    async def _informed(self) -> Informed:
        """When it is known who is silent, if Redis says it."""
        engine, began = self._engine(), monotonic()
        if not self._heartbeat.is_known:
            await self._heartbeat.learn(engine)
        return engine, began

    async def _census(
        self, informed: Informed, group: str
    ) -> tuple[list[bytes], list[bytes]]:
        """All members of a group, and those of silent processes."""
        engine, began = informed
        operations = self._operations
        request = operations.members(group)
        members: list[bytes] = await engine.run(request, began)
        operations.note_members(request, members)
        census, key = operations.liveness.census, operations.group_key(group)
        return members, census.silent_among(key, members, monotonic())

    def _process(self, one: bytes, at: float, packed: bytes | None) -> Process | None:
        """A process by its id; None, and counted, if it is none of this package."""
        info = decode_info(packed)
        if info is None:
            self._counters.count("heartbeats that are not ours", repr(one))
            return None
        host, version = str(info.get("host", "")), str(info.get("version", ""))
        stats = info.get("stats")
        return Process(
            one.decode("utf-8", "replace"),
            host,
            info["pid"],
            version,
            at,
            stats if isinstance(stats, dict) else {},
        )


class PubSubLiveness(Liveness):
    """The same where Redis knows no members."""

    async def group_members(self, group: str) -> NoReturn:
        """Raises `NotSupported`: Redis stores no members of Pub/Sub groups."""
        self._refuse("group_members", group)

    async def group_count(self, group: str) -> NoReturn:
        """Raises `NotSupported`: Redis stores no members of Pub/Sub groups."""
        self._refuse("group_count", group)

    def _refuse(self, method: str, group: str) -> NoReturn:
        self.require_valid_group_name(group)
        raise NotSupported(
            f"{method}({group!r}): Redis stores no members of Pub/Sub groups. The core "
            "layer does (channels_redis_fast.core.RedisChannelLayer); here processes() "
            "says which processes live"
        )


class SyncLiveness:
    """The same methods, blocking."""

    def group_members(self, group: str) -> list[str]:
        """The channels in a group whose processes live, as the layer's own says."""
        members: list[str] = self._run("group_members", group)
        return members

    def group_count(self, group: str) -> int:
        """How many channels `group_members` would name."""
        count: int = self._run("group_count", group)
        return count

    def processes(self) -> list[Process]:
        """The processes that use this layer and live, as the layer's own says."""
        found: list[Process] = self._run("processes")
        return found

    def _run(self, method: str, *args: Any) -> Any:
        raise NotImplementedError
