"""Where faults happen: servers, what stands in front of them, and two ways to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from support.clusters import Cluster
from support.proxy import Proxy
from support.sentinels import SentinelSet
from support.servers import Server


@dataclass(frozen=True)
class Single:
    """One server."""

    server: Server

    @property
    def hosts(self) -> tuple[Any, Any]:
        """The entries of `hosts` for those that receive and those that send."""
        return self.server.url, self.server.url


@dataclass(frozen=True)
class Proxied:
    """One server behind two proxies: those that receive have one for themselves."""

    server: Server
    readers: Proxy
    senders: Proxy

    @property
    def hosts(self) -> tuple[Any, Any]:
        """As above."""
        return self.readers.url, self.senders.url


@dataclass(frozen=True)
class Watched:
    """A primary and its replica, watched by Sentinels."""

    sentinels: SentinelSet

    @property
    def hosts(self) -> tuple[Any, Any]:
        """As above."""
        return self.sentinels.host, self.sentinels.host


@dataclass(frozen=True)
class Clustered:
    """A Cluster."""

    cluster: Cluster

    @property
    def hosts(self) -> tuple[Any, Any]:
        """As above."""
        return self.cluster.host, self.cluster.host


Scene = Single | Proxied | Watched | Clustered

# Writes are on the disk before they are answered.
DURABLE = {"appendonly": "yes", "appendfsync": "always"}


@contextmanager
def scene(kind: str) -> Iterator[Scene]:
    """A scene of its own: "single", "durable", "proxied", "sentinels" or "cluster"."""
    with ExitStack() as stack:
        enter = stack.enter_context
        if kind == "sentinels":
            yield Watched(enter(SentinelSet()))
        elif kind == "cluster":
            yield Clustered(enter(Cluster()))
        else:
            server = enter(Server(options=DURABLE if kind == "durable" else {}))
            if kind == "proxied":
                yield Proxied(server, enter(Proxy(server)), enter(Proxy(server)))
            else:
                yield Single(server)
