"""A step of a program: a process beside the fleet's is killed, and misses its beats."""

from __future__ import annotations

from typing import Any

from support.fleets import Topology
from support.model import Broken
from support.modelled import Modelled
from support.peers import CORE, PUBSUB, Peer
from support.pretending import beat, server_time

MEMBERS = 2
# For so many seconds a process is not counted, or not sent to, with the defaults.
SILENT, DEAD = 20, 70


async def process_dies(program: Modelled, group: str) -> None:
    """A process with members in a group lives, is silent, and then dead.

    Meanwhile the living are counted, and miss nothing.
    """
    fleet, model = program.fleet, program.model
    await program.quiet()
    killed = Killed(fleet.topology, fleet.layers[0].prefix, group)
    await killed.live(group, is_core=fleet.is_core, **fleet.config(1))
    for seconds in (0, SILENT, DEAD):
        killed.is_silent_for(seconds)
        for layer in fleet.layers:
            await beat(layer)
        await _check_count(program, group, 0 if seconds else MEMBERS)
        call = model.begin_call()
        sender = (0, 0)
        program.settle(await program.begin_group_send(sender, call, False, group))
    fleet.read_anew()
    await program.group_send(0, False, group)  # to none of the dead, if it is core
    await fleet.layers[0]._heartbeat.tend(fleet.layers[0]._engine())
    program.check_groups()


async def _check_count(program: Modelled, group: str, others: int) -> None:
    """Compares who is counted with the model, but for `others`."""
    if not program.fleet.is_core:
        return
    states = program.model.groups.get(group, {}).values()
    for index in (0, 1):
        count = await program.fleet.call(index, False, "group_count", group)
        if not sum(states) <= count - others <= len(states):
            raise Broken(f"{group} has {count}, {others} of another, of {states}")


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
