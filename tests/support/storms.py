"""Many calls at the same time, and connections that break meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from support.modelled import Modelled, Outcome, error_of, refused_first

CHANGES = ("join", "leave")
ROUNDS = 300  # of an impatient reader


class Action(NamedTuple):
    """Something that is done while other things are done."""

    kind: str
    layer: int
    sync: bool
    target: str
    group: str
    count: int  # of messages, or turns of the event loop


async def storm(program: Modelled, actions: list[Action], fault: str, at: int) -> None:
    """Actions at the same time, and perhaps a fault after `at` turns or bytes."""
    await program.quiet()
    model, fleet = program.model, program.fleet
    call = model.begin_call()
    for action in actions:
        if action.kind in CHANGES:
            model.set_member(action.group, action.target, False)
    with fleet.armed(fault, at):
        patience = 1 if fault else ROUNDS
        acts = [_act(program, i, call, a, patience) for i, a in enumerate(actions)]
        breaks = [_break(program, at)] if fault == "kill" else []
        results = await asyncio.gather(*acts, *breaks)
    if fault:
        await _heal(program, call)
    everything: list[Outcome] = [one for outcomes in results for one in outcomes]
    for outcome in refused_first(everything):
        program.settle(outcome, fault=bool(fault))
    if not fault:
        _settle_changes(program, [a for a in actions if a.kind in CHANGES])
    await program.quiet()


async def _act(
    program: Modelled, number: int, call: int, action: Action, rounds: int
) -> list[Outcome]:
    kind, layer, sync, target, group, count = action
    sender = layer, f"storm {number}"
    outcomes: list[Outcome] = []
    if kind == "send":
        if not sync:  # all calls of an event loop are written as they began
            sender = layer, "loop"
        for _ in range(count):
            outcomes.append(await program.begin_send(sender, call, sync, target))
    elif kind == "group":
        for _ in range(count):
            outcomes.append(await program.begin_group_send(sender, call, sync, group))
    elif kind == "receive":
        program.wait(target, layer)
    elif kind == "cancel":
        await _cancel(program, action, rounds)
    else:
        method = "group_add" if kind == "join" else "group_discard"
        owner = program.model.channels[target].owner or 0
        changing = program.fleet.call(owner, sync, method, group, target)
        outcomes.append(([], await error_of(changing)))
    return outcomes


async def _cancel(program: Modelled, action: Action, rounds: int) -> None:
    """Receives and is cancelled, again and again, until a message comes."""
    is_normal = program.model.channels[action.target].owner is None
    for _ in range(min(rounds, 2) if is_normal else rounds):  # it takes its time
        waiter = program.wait(action.target, action.layer)
        await _turns(action.count)
        await program.cancel(waiter)
        if not waiter.task.cancelled():
            return


def _settle_changes(program: Modelled, changes: list[Action]) -> None:
    """What nobody else changed at the same time is as it was made."""
    for change in changes:
        what: Any = change.group, change.target
        if [(c.group, c.target) for c in changes].count(what) == 1:
            program.model.set_member(*what, change.kind == "join" or None)


async def _break(program: Modelled, turns: int) -> list[Outcome]:
    await _turns(turns)
    program.fleet.topology.kill()
    return []


async def _heal(program: Modelled, call: int) -> None:
    """Returns when all is whole again."""
    fleet = program.fleet
    await fleet.whole()
    # What broke behind a proxy may not be noticed yet: those who go now all are.
    before = fleet.connections()
    fleet.topology.kill()
    for _ in range(2):
        program.model.broke(call)
    await fleet.whole(before)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
