"""A Redis Cluster as an entry of `hosts`, and its nodes."""

from __future__ import annotations

from typing import Any

from redis import asyncio as aioredis
from redis import exceptions as errors

from ..exceptions import InvalidSetting
from .host import Host
from .host_settings import nodes_of
from .topology import address_of


class ClusterHost(Host):
    """A Redis Cluster, known by some of its nodes."""

    finds_primary = True

    @property
    def nodes(self) -> list[tuple[str, int]]:
        """The nodes that the settings name."""
        return nodes_of(self._settings.value["cluster"])

    def node(self, host: str, port: int) -> Host:
        """One node of it, with the credentials and options of all."""
        settings = {**self._settings.value, "host": host, "port": port}
        del settings["cluster"]
        node = ClusterNode(settings, self.connect_timeout, self.check)
        node.note_time = self.note_time
        return node

    def client(self) -> Any:
        """A redis-py client of its own, for applications that want one."""
        arguments = {**self._arguments.value}
        del arguments["cluster"]
        nodes = [aioredis.cluster.ClusterNode(*node) for node in self.nodes]
        return aioredis.RedisCluster(startup_nodes=nodes, **arguments)

    def pool(self, **ours: Any) -> aioredis.ConnectionPool:
        """Raises `InvalidSetting`: there is a pool for each node."""
        raise InvalidSetting(f"{self} has no one pool: use redis.asyncio.RedisCluster")

    def try_arguments(self) -> None:
        """As a `Host`'s."""
        for node in self.nodes:
            self.node(*node).try_arguments()


class ClusterNode(Host):
    """One node of a Redis Cluster."""

    def explain(self, error: errors.RedisError) -> errors.RedisError:
        """An error reply as callers get it: where it sends them is an address."""
        if isinstance(error, errors.AskError):
            asked = self.settings["host"]
            error.host, error.port = address_of(error.host, error.port, asked)
        return error
