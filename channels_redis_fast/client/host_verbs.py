"""Which commands of Pub/Sub an entry of `hosts` knows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from redis.exceptions import ResponseError

from ..commands.command import Command
from ..commands.publishing import CLASSIC, SHARDED, ask_for_sharded, verbs_by
from .asked_once import AskedOnce
from .cluster_host import ClusterHost
from .host import Host


class HostVerbs(AskedOnce):
    """The commands of Pub/Sub at one host: a Cluster's are asked for, if `sharded`.

    As long as they aren't known they are taken for sharded: an old server refuses
    those, while nobody would hear the others.
    """

    def __init__(self, host: Host, sharded: bool) -> None:
        self.is_cluster = isinstance(host, ClusterHost)
        super().__init__(not (sharded and self.is_cluster))
        self.verbs = CLASSIC if self.is_known else SHARDED

    @property
    def counts_all(self) -> bool:
        """Whether the reply to a publication counts all subscribers, not a node's."""
        return self.verbs is SHARDED or not self.is_cluster

    async def ask(
        self,
        shard: object,
        name: str | bytes,
        run: Callable[[Command], Awaitable[object]],
    ) -> None:
        """Returns when they are known, as `learn`; `run` asks the server of a name."""
        await self.learn(shard, lambda: self._ask(name, run))

    async def _ask(
        self, name: str | bytes, run: Callable[[Command], Awaitable[object]]
    ) -> None:
        try:
            await run(ask_for_sharded(name))
        except ResponseError as error:
            self.verbs = verbs_by(error)
            raise
