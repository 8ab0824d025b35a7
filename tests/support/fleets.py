"""Two layers on any topology, as two processes, and what an operator can do to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis

from channels_redis_fast.wire.reserved import CLEAR
from support.accounts import Channel
from support.loops import LoopThread
from support.polling import eventually
from support.proxy import Proxy
from support.syncing import KINDS

# Lets the scores of a key, and its time to live, look as they will in so many seconds.
AGE = """
local members = redis.call('ZRANGE', KEYS[1], 0, -1)
for _, member in ipairs(members) do
    redis.call('ZINCRBY', KEYS[1], '-' .. ARGV[1], member)
end
local left = redis.call('PTTL', KEYS[1])
if left >= 0 then redis.call('PEXPIRE', KEYS[1], left - 1000 * ARGV[1]) end
"""


# Blocking calls of a Pub/Sub layer for which an event loop subscribes.
_NEED_A_LOOP = ("new_channel", "group_add", "group_join", "receive")

NEVER = 1 << 60  # bytes

# By whom a method is called: in the running event loop (False), blocking, in a thread
# (True), or in another event loop.
Caller = bool | LoopThread


class Clock:
    """The time of channels in a process, for tests that can't wait."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        """As `time.monotonic`, some seconds ahead."""
        return time.monotonic() + self.ahead


@dataclass
class Topology:
    """Where two layers connect to, and a client for each server."""

    hosts: Callable[[int], list[Any]]  # of each of the layers
    clients: list[redis.Redis]
    client_of: Callable[[str], redis.Redis] | None = None  # a Cluster's, for a key
    proxies: list[Proxy] = field(default_factory=list)  # for the first host of each

    @property
    def shards(self) -> int:
        """How many hosts each layer has."""
        return len(self.hosts(0))

    @property
    def is_one(self) -> bool:
        """Whether all names are at one server."""
        return len(self.clients) == 1

    def clients_for(self, key: str) -> list[redis.Redis]:
        """Clients of the servers that may have a key."""
        return [self.client_of(key)] if self.client_of else self.clients

    def members(self, key: str) -> list[bytes]:
        """The members of a key, on all its servers."""
        found = (client.zrange(key, 0, -1) for client in self.clients_for(key))
        return [member for members in found for member in members]

    def age(self, key: str, seconds: float) -> None:
        """Lets time pass for a key."""
        for client in self.clients_for(key):
            client.eval(AGE, 1, key, seconds)

    def kill(self) -> None:
        """Ends every connection by CLIENT KILL, but those of replicas."""
        for client in self.clients:
            client.client_kill_filter(_type="pubsub")
            client.client_kill_filter(_type="normal", skipme=True)


Get = Callable[[str], Any]


@contextmanager
def server(get: Get) -> Iterator[Topology]:
    """One server, each layer behind a proxy of its own."""
    valkey = get("valkey")
    with Proxy(valkey) as one, Proxy(valkey) as other:
        proxies = [one, other]
        yield Topology(lambda i: [proxies[i].url], [valkey.client()], proxies=proxies)


@contextmanager
def unix(get: Get) -> Iterator[Topology]:
    """One server with a password, over its UNIX socket."""
    guarded = get("guarded")
    yield Topology(lambda _: [guarded.unix_url], [guarded.client()])


@contextmanager
def shards(get: Get) -> Iterator[Topology]:
    """Three shards: two kinds of servers, and another database of the first."""
    valkey, redis62 = get("valkey"), get("redis62")
    clients = [valkey.client(), redis62.client(), valkey.client(db=1)]
    with Proxy(valkey) as one, Proxy(valkey) as other:
        urls = [[p.url, redis62.url, f"{valkey.url}/1"] for p in (one, other)]
        yield Topology(lambda i: urls[i], clients, proxies=[one, other])


@contextmanager
def sentinel(get: Get) -> Iterator[Topology]:
    """The primary that Sentinels name."""
    sentinels = get("sentinels")
    yield Topology(lambda _: [sentinels.host], [sentinels.primary.client()])


@contextmanager
def cluster(get: Get) -> Iterator[Topology]:
    """A Cluster."""
    nodes = get("cluster")
    clients = [node.client() for node in nodes.primaries]
    yield Topology(lambda _: [nodes.host], clients, lambda k: nodes.node_of(k).client())


TOPOLOGIES = {make.__name__: make for make in (server, unix, shards, sentinel, cluster)}


class Fleet:
    """Two layers of a kind, and looks into them that no application would take."""

    def __init__(
        self, kind: str, topology: Topology, clock: Clock, **options: Any
    ) -> None:
        self.topology = topology
        self._clock = clock
        self._options = options
        self.is_core = kind == "core"
        self.layers = [KINDS[kind](**self.config(i)) for i in (0, 1)]

    def config(self, index: int) -> dict[str, Any]:
        """What a layer was made with."""
        return {"hosts": self.topology.hosts(index), **self._options}

    async def aclose(self) -> None:
        """Closes all connections."""
        for layer in self.layers:
            await layer.close_pools()
            await asyncio.to_thread(layer.sync.close)

    async def call(
        self, index: int, by: Caller, method: str, *args: Any, **options: Any
    ) -> Any:
        """Calls a layer's method."""
        layer = self.layers[index]
        if not self.is_core and not layer._loops.all() and method in _NEED_A_LOOP:
            by = False
        if by is True:
            blocking = getattr(layer.sync, method)
            call: Any = asyncio.to_thread(blocking, *args, **options)
        elif by:
            work = getattr(layer, method)(*args, **options)
            call = asyncio.wrap_future(by.begin(work))
        else:
            call = getattr(layer, method)(*args, **options)
        return await asyncio.wait_for(call, 20)

    def read_anew(self) -> None:
        """Lets the core layers forget whose members they read within a second."""
        for layer in self.layers if self.is_core else ():
            layer._operations._clean_until.clear()

    def waiting(self, index: int) -> dict[str, list[int]]:
        """The numbers of the messages in a layer's mailboxes."""
        boxes = self.layers[index]._mailboxes.snapshot().items()
        return {name: [one.get("n") for one in messages] for name, messages in boxes}

    def stored(self, channel: Channel) -> set[int]:
        """The numbers of the messages that are stored under a channel's key."""
        if not self._is_stored(channel):
            return set()
        key, codec = self._key(channel), self.layers[0]._operations.codec
        members = self.topology.members(key)
        messages = (codec.open(member, key.encode())[1] for member in members)
        return {one["n"] for one in messages if CLEAR not in one}

    def is_moving(self, channel: Channel) -> bool:
        """Whether what is stored for a channel of a layer is just being read."""
        if channel.owner is None or not self.is_core:
            return False
        inbox = self.layers[channel.owner]._mailboxes.owners._inboxes.get(
            channel.key.name
        )
        return inbox is not None and inbox.reader is not None and not inbox.stalled

    def passes(self, seconds: float, channels: Iterable[Channel]) -> None:
        """Lets time pass, at Redis and for the channels of both layers."""
        self._sweep()  # what ended until now begins to age
        self._clock.ahead += seconds
        for key in {self._key(one) for one in channels if self._is_stored(one)}:
            self.topology.age(key, seconds)
        self._sweep()

    def _sweep(self) -> None:
        for layer in self.layers:
            engine: Any = layer._loops.engine()
            (engine if self.is_core else engine.engine)._sweep()

    def _is_stored(self, channel: Channel) -> bool:
        return self.is_core or channel.owner is None

    def _key(self, channel: Channel) -> str:
        return f"{self.layers[0].prefix}{channel.key.name}"

    def members(self, group: str) -> set[str]:
        """The members of a group, as the core layer stores them."""
        members = self.topology.members(f"{self.layers[0].prefix}:group:{group}")
        return {member.decode() for member in members}

    def hears(self, index: int, group: str) -> bool:
        """Whether a Pub/Sub layer has members of a group."""
        layer = self.layers[index]
        return bool(layer._table.members(layer._group_name(group).encode()))

    # Connections that break and come back

    def connections(self) -> set[Any]:
        """All connections of both layers' event loop."""
        links = (link for shard in self._shards() for link in shard._links)
        return {link.connection for link in links if link.connection is not None}

    async def whole(self, but: Set[Any] = frozenset()) -> None:
        """Returns when all connections are there again, and none of those."""
        await eventually(lambda: not self.connections() & but, "the loss to be noticed")
        await eventually(self._are_back, "connections")
        if not self.is_core:
            for layer in self.layers:
                await eventually(lambda one=layer: _listens(one), "subscriptions")

    def listens(self, index: int) -> bool:
        """Whether all that a Pub/Sub layer wants to hear is confirmed."""
        layer = self.layers[index]
        return bool(layer._loops.all()) and _listens(layer, to_all=True)

    @contextmanager
    def armed(self, fault: str, at: int) -> Iterator[None]:
        """Cuts a connection after so many bytes of "replies" or "requests"."""
        if fault not in ("replies", "requests"):
            yield
            return
        flow = getattr(self.topology.proxies[at % 2], fault)
        flow.cut_after(at)
        yield
        flow.cut_after(NEVER)

    def _are_back(self) -> bool:
        down = [link for shard in self._shards() for link in shard.health._down]
        for link in down:
            link.begin()  # one that never was there waits for somebody who needs it
        links = [link for shard in self._shards() for link in shard._links]
        return not down and all(link._attempt is None for link in links)

    def _shards(self) -> list[Any]:
        locals_ = [local for one in self.layers for local in one._loops.all()]
        return [shard for local in locals_ for shard in local.shards]


def _listens(layer: Any, to_all: bool = False) -> bool:
    """Whether all names that have a home are confirmed; `to_all`: all have one."""
    for name, wanted in layer._table._subscriptions.items():
        if wanted.owner is None or not wanted.owner.is_open:
            if to_all:
                return False
            continue
        subscriber = wanted.owner.placement._places.get(name)
        confirmations = subscriber and subscriber._confirmations
        answer = confirmations and confirmations.get(name)
        if not answer or not answer.done() or answer.exception():
            return False
    return True
