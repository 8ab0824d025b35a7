"""A primary, its replicas, and the Sentinels that watch over them."""

from __future__ import annotations

from typing import Any

import redis

from support import programs
from support.polling import until
from support.servers import Server

# What makes Sentinel quicker than it is made for, within limits: it promotes no replica
# that was silent for five ping periods, and demotes a primary that it doesn't expect
# after four publish periods, also one that another Sentinel is about to promote.
HASTE = {"info-period": 100, "ping-period": 200, "publish-period": 500}
CALM = {"info-period": 10_000, "ping-period": 1000, "publish-period": 2000}


class SentinelSet:
    """One primary, replicas and three Sentinels on ports of their own."""

    name = "main"

    def __init__(
        self,
        *,
        replicas: int = 1,
        sentinels: int = 3,
        down_after: int = 600,
        password: str | None = None,
    ) -> None:
        self._sizes = replicas, sentinels
        self._down_after = down_after
        self._password = password
        self.servers: list[Server] = []
        self.sentinels: list[Server] = []

    def __enter__(self) -> SentinelSet:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def host(self) -> dict[str, Any]:
        """The entry of `hosts`."""
        addresses = [list(sentinel.address) for sentinel in self.sentinels]
        entry: dict[str, Any] = {"sentinels": addresses, "master_name": self.name}
        return entry | ({"password": self._password} if self._password else {})

    @property
    def pids(self) -> set[int]:
        """The ids of its processes."""
        return {pid for one in self._all for pid in one.pids}

    @property
    def primary(self) -> Server:
        """The server that the Sentinels call the primary."""
        port = self._agreed()
        if port is None:
            raise RuntimeError("the Sentinels don't agree on a primary")
        return self._by_port(port)

    @property
    def replicas(self) -> list[Server]:
        """The other servers that run."""
        primary = self.primary
        return [one for one in self.servers if one.running and one is not primary]

    def client(self) -> redis.Redis:
        """A blocking client of the present primary."""
        return self.primary.client()

    def flush(self) -> None:
        """Remove all data."""
        self.primary.flush()

    def disconnect(self) -> None:
        """Close the connections of the clients."""
        for server in self._all:
            server.disconnect()

    def start(self) -> SentinelSet:
        """Start everything, and wait until the Sentinels know all."""
        replicas, sentinels = self._sizes
        try:
            primary = Server(password=self._password).start()
            self.servers.append(primary)
            of = f"{primary.host} {primary.port}"
            for _ in range(replicas):
                options = {"replicaof": of, "repl-ping-replica-period": 1}
                replica = Server(password=self._password, options=options)
                self.servers.append(replica.start())
            for _ in range(sentinels):
                # Redis 6.2 has no SENTINEL DEBUG, whatever the others are.
                options = self._watching(of)
                sentinel = Server(programs.valkey(), sentinel=True, options=options)
                self.sentinels.append(sentinel.start())
                self._pace(sentinel, HASTE)
            until(self._complete, "the Sentinels to know each other and the replicas")
        except BaseException:
            self.stop()
            raise
        return self

    def calm(self) -> None:
        """Have the Sentinels look as seldom as elsewhere, where nothing is to fail."""
        for sentinel in self.sentinels:
            self._pace(sentinel, CALM)

    def stop(self) -> None:
        """End everything."""
        for server in [*self.sentinels, *self.servers]:
            server.stop()

    def failover(self, *, timeout: float = 20.0) -> Server:
        """Kill the primary, and wait until the Sentinels have made another one."""
        old = self._settled_primary(timeout)
        old.kill()
        return self.await_other(old, timeout=timeout)

    def switch(self, *, timeout: float = 20.0) -> Server:
        """Let the Sentinels demote the primary, which goes on as a replica."""
        old = self._settled_primary(timeout)
        # Asked again if need be: a failover may be given up half-way.
        new = until(
            lambda: self._other(old) or self._ask_to_switch(old),
            "another primary",
            timeout=timeout,
        )
        until(lambda: _synced(old), "the old primary to follow", timeout=timeout)
        return new

    def revive(self, server: Server) -> None:
        """Start a killed server again; the Sentinels make it a replica."""
        server.start()
        until(lambda: _synced(server), "the old primary to follow", timeout=20)

    def _settled_primary(self, timeout: float) -> Server:
        until(self._settled, "the Sentinels to be done with it", timeout=timeout)
        return self.primary

    def _settled(self) -> bool:
        """Whether nobody is in the middle of a failover, and there is a choice."""
        running = [sentinel for sentinel in self.sentinels if sentinel.running]
        ports = {one.port for one in self.servers if one.running}
        for sentinel in running:
            primary = _pairs(self._ask(sentinel, "MASTER", self.name))
            replicas = map(_pairs, self._ask(sentinel, "REPLICAS", self.name))
            well = {int(one["port"]) for one in replicas if one["flags"] == "slave"}
            port = int(primary["port"])
            if primary["flags"] != "master" or not well or well != ports - {port}:
                return False
        return self._agreed() is not None

    def await_other(self, old: Server, *, timeout: float = 20.0) -> Server:
        """Wait until the Sentinels have made another server the primary."""
        return until(lambda: self._other(old), "another primary", timeout=timeout)

    def _other(self, old: Server) -> Server | None:
        """The primary, when it is another one and all know."""
        port = self._agreed()
        if port in (None, old.port):
            return None
        server = self._by_port(port)
        return server if _role(server) == "master" else None

    def _ask_to_switch(self, old: Server) -> None:
        first = self.sentinels[0]
        try:
            if self._named(first) == old.port:  # it has nothing under way
                self._ask(first, "FAILOVER", self.name)
        except redis.ResponseError as error:
            if "NOGOODSLAVE" not in str(error) and "INPROG" not in str(error):
                raise

    @property
    def _all(self) -> list[Server]:
        return [*self.servers, *self.sentinels]

    def _by_port(self, port: int | None) -> Server:
        return next(server for server in self.servers if server.port == port)

    def _agreed(self) -> int | None:
        ports = {self._named(one) for one in self.sentinels if one.running}
        return ports.pop() if len(ports) == 1 else None

    def _named(self, sentinel: Server) -> int:
        """The port of the primary, as a Sentinel says."""
        return int(self._ask(sentinel, "GET-MASTER-ADDR-BY-NAME", self.name)[1])

    def _complete(self) -> bool:
        replicas, sentinels = self._sizes
        return all(map(_synced, self.servers[1:])) and all(
            len(self._ask(sentinel, "REPLICAS", self.name)) == replicas
            and len(self._ask(sentinel, "SENTINELS", self.name)) == sentinels - 1
            for sentinel in self.sentinels
        )

    def _ask(self, sentinel: Server, *words: str) -> Any:
        return sentinel.client().execute_command("SENTINEL", *words)

    def _pace(self, sentinel: Server, periods: dict[str, int]) -> None:
        words = [str(word) for pair in periods.items() for word in pair]
        self._ask(sentinel, "DEBUG", *words)

    def _watching(self, address: str) -> dict[str, Any]:
        quorum = self._sizes[1] // 2 + 1
        lines = [
            f"monitor {self.name} {address} {quorum}",
            f"down-after-milliseconds {self.name} {self._down_after}",
            f"failover-timeout {self.name} 2000",
        ]
        if self._password:
            lines.append(f"auth-pass {self.name} {self._password}")
        return {"sentinel": lines}


def _pairs(words: list[bytes]) -> dict[str, str]:
    texts = [word.decode() for word in words]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _replication(server: Server) -> dict[str, Any]:
    try:
        return dict(server.client().info("replication"))
    except redis.ConnectionError:
        # A server that is given another role closes its clients' connections.
        return {}


def _role(server: Server) -> str | None:
    return _replication(server).get("role")


def _synced(server: Server) -> bool:
    state = _replication(server)
    return state.get("role") == "slave" and state.get("master_link_status") == "up"
