"""Many calls at the same time, and connections that break meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from typing import NamedTuple

from support.accounts import Join
from support.fleets import Caller
from support.loops import LoopThread
from support.modelled import Modelled, Outcome, error_of, refused_first

CHANGES = ("join", "leave")
# Who acts: the running event loop, a thread that blocks, or one more event loop.
HERE, THREAD, ELSEWHERE = "here", "thread", "elsewhere"
ROUNDS = 300  # of an impatient reader


class Action(NamedTuple):
    """Something that is done while other things are done."""

    kind: str
    layer: int
    place: str
    target: str
    group: str
    count: int  # of messages, or turns of the event loop


async def storm(program: Modelled, actions: list[Action], fault: str, at: int) -> None:
    """Actions at the same time, and perhaps a fault after `at` turns or bytes."""
    await program.quiet()
    changes = _Changes(program, [a for a in actions if a.kind in CHANGES])
    call = program.model.begin_call()
    with program.fleet.armed(fault, at):
        async with callers({action.place for action in actions}) as by:
            acts = [
                _act(program, changes, (i, call), a, by[a.place], bool(fault))
                for i, a in enumerate(actions)
            ]
            breaks = [_break(program, at)] if fault == "kill" else []
            results = await asyncio.gather(*acts, *breaks)
    if fault:
        await heal(program, call)
    changes.settle()
    everything: list[Outcome] = [one for outcomes in results for one in outcomes]
    for outcome in refused_first(everything):
        program.settle(outcome, fault=bool(fault))
    await program.quiet()


@asynccontextmanager
async def callers(places: Set[str]) -> AsyncIterator[dict[str, Caller]]:
    """By place; the other event loop, which nobody called in before, ends with it."""
    found: dict[str, Caller] = {HERE: False, THREAD: True}
    if ELSEWHERE not in places:
        yield found
        return
    found[ELSEWHERE] = other = LoopThread(asyncio.new_event_loop())
    try:
        yield found
    finally:
        await asyncio.to_thread(other.close)


async def _act(
    program: Modelled,
    changes: _Changes,
    numbers: tuple[int, int],
    action: Action,
    by: Caller,
    is_impatient: bool,
) -> list[Outcome]:
    kind, layer, _, target, group, count = action
    number, call = numbers
    sender: tuple[int, object] = layer, f"storm {number}"
    outcomes: list[Outcome] = []
    if kind == "send":
        if by is not True:  # all calls of an event loop are written as they began
            sender = layer, by
        for _ in range(count):
            outcomes.append(await program.begin_send(sender, call, by, target))
    elif kind == "group":
        for _ in range(count):
            outcomes.append(await program.begin_group_send(sender, call, by, group))
    elif kind == "receive":
        program.wait(target, layer)
    elif kind == "cancel":
        await _cancel(program, action, 1 if is_impatient else ROUNDS)
    else:
        outcomes.append(([], await changes.make(action, by)))
    return outcomes


async def _cancel(program: Modelled, action: Action, rounds: int) -> None:
    """Receives and is cancelled, again and again, until a message comes."""
    is_normal = program.model.channels[action.target].owner is None
    for _ in range(min(rounds, 2) if is_normal else rounds):  # it takes its time
        waiter = program.wait(action.target, action.layer)
        await turns(action.count)
        await program.cancel(waiter)
        if not waiter.task.cancelled():
            return


class _Changes:
    """Channels that join and leave groups at the same time."""

    def __init__(self, program: Modelled, changes: list[Action]) -> None:
        self._program = program
        self._places: dict[tuple[str, str], list[str]] = {}
        for _, _, place, name, group, _ in changes:
            program.model.set_member(group, name, False)
            self._places.setdefault((group, name), []).append(place)
        self._joins: list[Join] = []  # that returned
        self._made: list[Action] = []

    async def make(self, change: Action, by: Caller) -> Exception | None:
        """Joins or leaves."""
        model, fleet = self._program.model, self._program.fleet
        kind, group, name = change.kind, change.group, change.target
        owner = model.channels[name].owner or 0
        if kind == "join":
            join = model.begin_join(group, name, self._loop(change, owner, by))
            error = await error_of(fleet.call(owner, by, "group_add", group, name))
            self._joins += [join] if error is None else []
        else:
            model.begin_leave(group, name)
            error = await error_of(fleet.call(owner, by, "group_discard", group, name))
        self._made += [change] if error is None else []
        return error

    def _loop(self, change: Action, owner: int, by: Caller) -> object:
        """Whose calls come in the order of the changes; by nobody else's, if several.

        A Pub/Sub layer subscribes on another connection than it publishes on.
        """
        places = set(self._places[change.group, change.target])
        in_order = self._program.fleet.is_core and places == {change.place}
        return (owner, by) if in_order and by is not True else object()

    def settle(self) -> None:
        """What was changed once is as it was made, what joined got what began later."""
        self._program.model.end_joins(self._joins)
        for change in self._made:
            what = change.group, change.target
            if len(self._places[what]) == 1:
                self._program.model.set_member(*what, change.kind == "join" or None)


async def _break(program: Modelled, count: int) -> list[Outcome]:
    await turns(count)
    program.fleet.topology.kill()
    return []


async def heal(program: Modelled, call: int) -> None:
    """Returns when all is whole again."""
    fleet = program.fleet
    await fleet.whole()
    # What broke behind a proxy may not be noticed yet: those who go now all are.
    before = fleet.connections()
    fleet.topology.kill()
    for _ in range(2):
        program.model.broke(call)
    await fleet.whole(before)


async def turns(count: int) -> None:
    """Lets others go on, so many times."""
    for _ in range(count):
        await asyncio.sleep(0)
