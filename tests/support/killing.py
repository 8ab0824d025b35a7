"""A process beside a fleet's that is killed, and then silent for as long as is said."""

from __future__ import annotations

from typing import Any

from support.fleets import Topology
from support.peers import CORE, PUBSUB, Peer
from support.pretending import server_time

MEMBERS = 2


class Killed:
    """A process with members in a group, which was ended by SIGKILL."""

    def __init__(self, topology: Topology, prefix: str, group: str) -> None:
        self.id = ""
        self.members: list[str] = []
        self._topology = topology
        self._alive = f"{prefix}:alive:{{processes}}"
        self._group = f"{prefix}:group:{group}"

    async def live(self, group: str, **config: Any) -> None:
        """Its short life: it joins, beats, and is killed."""
        layer = CORE if config.pop("is_core") else PUBSUB
        async with Peer(layer, config) as peer:
            for _ in range(MEMBERS):
                self.members.append(await peer.new_channel())
                await peer.group_add(group, self.members[-1])
            await peer.processes()  # it has beaten when it knows them
            peer.kill()
        self.id = self.members[0].partition("!")[0].rpartition(".")[2]

    def is_silent_for(self, seconds: float) -> None:
        """Makes its last beat, and its joining, so old; Redis was never away."""
        for client in self._topology.clients_for(self._alive):
            at = server_time(client) - seconds
            client.zadd(self._alive, {self.id: at}, xx=True)
            client.zrem(self._alive, "!outage")
        for client in self._topology.clients_for(self._group):
            at = server_time(client) - seconds
            client.zadd(self._group, dict.fromkeys(self.members, at), xx=True)
