"""Random programs over both layers and all topologies, held against the promises.

    make model PROGRAMS=1000 [SEED=2]

A program is a few dozen steps of hypothesis's state machine; see `model.py` for what is
promised, `modelled.py` for the steps. What fails is shrunk and printed as a program.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from channels_redis_fast.client import reconnecting
from channels_redis_fast.mailboxes import registry
from channels_redis_fast.runtime import replays
from support.fleets import TOPOLOGIES, Clock, Fleet, Topology
from support.following_rules import FollowingRules
from support.following_steps import Following
from support.histories import LOG, Histories
from support.killing import process_dies
from support.model import Model
from support.modelled import Modelled
from support.storms import CHANGES, ELSEWHERE, HERE, THREAD, Action, storm
from support.syncing import KINDS

PROGRAMS = int(os.environ.get("PROGRAMS", "40"))
STEPS = 40
SEED = int(os.environ.get("SEED", "1"))
# The first counter-example as it is: what depends on time can hardly be shrunk.
PHASES = [Phase.generate]

EXPIRY = 60
NORMAL = ("worker", "mail")
GROUPS = ("red", "blue")
KEYS = ["a key", "an older key"]

T = TypeVar("T")
Storm = Callable[[list[Any], str, int], Coroutine[Any, Any, None]]

layers = st.integers(0, 1)
places = st.integers(0, 11)  # in a list, over and over
groups = st.sampled_from(GROUPS)
syncs = st.sampled_from([False, False, True])
actions = st.tuples(
    st.sampled_from(["send", "send", "group", "receive", "cancel", "join", "leave"]),
    layers,
    st.sampled_from([HERE, HERE, THREAD, ELSEWHERE]),
    places,
    groups,
    st.integers(1, 5),
)
faults = st.sampled_from(["", "kill", "replies", "requests"])
moments = st.integers(0, 600)  # turns of the event loop, or bytes


class Programs(FollowingRules, RuleBasedStateMachine):
    """A program: two layers of a kind on a topology."""

    kind: str
    topology: Topology
    clock: Clock
    tally: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.complaints: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, one: self.complaints.append(one))
        self.is_broken = False
        self.has_seen_a_death = False

    @initialize(
        capacity=st.sampled_from([2, 5, 100]),
        encryption=st.sampled_from([None, "fernet", "aes-gcm"]),
        size=st.sampled_from([3, 1000]),
    )
    def begin(self, capacity: int, encryption: str | None, size: int) -> None:
        options: dict[str, Any] = {"capacity": capacity, "expiry": EXPIRY}
        options["history"] = {LOG: (size, 300)}
        if encryption:
            options |= {"symmetric_encryption_keys": KEYS, "encryption": encryption}
        prefix = uuid.uuid4().hex
        fleet = Fleet(self.kind, self.topology, self.clock, prefix=prefix, **options)
        self.model = Model(
            capacity=capacity,
            expiry=EXPIRY,
            shards=self.topology.shards,
            in_order=fleet.is_core or self.topology.is_one,
            stores=fleet.is_core,
        )
        for name in NORMAL:
            self.model.add_channel(name, None)
        self.program = Modelled(fleet, self.model)
        self.following = Following(self.program, Histories(size), capacity)
        for layer in (0, 0, 1):
            self.run(self.program.new_channel(layer, False, "a"))
        for name in self.program.held:
            self.run(self.program.join(False, "red", name))
        for layer in (0, 1):
            self.run(self.following.new(layer, False))
            self.follow(layer, None, False, False)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """One step, in the program's loop."""
        self.tally["steps"] += 1
        try:
            return self.loop.run_until_complete(work)
        except BaseException:
            self.is_broken = True
            raise

    def teardown(self) -> None:
        """Receives what is left, unless the program failed; closes all."""
        self.tally["programs"] += 1
        try:
            if hasattr(self, "program"):
                if not self.is_broken:
                    self.run(self.program.finish())
                    self.run(self.following.finish())
                self._count()
                self.loop.run_until_complete(self._close())
        finally:
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
        assert not self.complaints

    async def _close(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks if self.is_broken else ():
            task.cancel()
        await self.program.fleet.aclose()

    def _count(self) -> None:
        model = self.model
        self.tally.update(sent=model.numbers, received=model.received)
        self.tally.update({f"not received: {k}": n for k, n in model.missing.items()})
        self.tally.update(self.following.histories.tally)

    # What there is

    def channel(self, place: int) -> str:
        """One of the channels that live, of which two are normal."""
        return _pick(self._live(), place)

    def member(self, place: int) -> str | None:
        """A channel that may join a group, if there is one."""
        normal = () if self.kind == "core" else NORMAL
        found = [name for name in self._live() if name not in normal]
        return _pick(found, place) if found else None

    def _live(self) -> list[str]:
        return [one.name for one in self.model.channels.values() if one.is_live]

    # Channels and groups

    @rule(layer=layers, sync=syncs, prefix=st.sampled_from("ab"))
    def new_channel(self, layer: int, sync: bool, prefix: str) -> None:
        self.run(self.program.new_channel(layer, sync, prefix))

    @rule(place=places)
    def forget(self, place: int) -> None:
        if held := list(self.program.held):
            self.program.forget(_pick(held, place))

    @rule(group=groups, place=places, sync=syncs)
    def join(self, group: str, place: int, sync: bool) -> None:
        if name := self.member(place):
            self.run(self.program.join(sync, group, name))

    @rule(layer=layers, group=groups, place=places, sync=syncs)
    def leave(self, layer: int, group: str, place: int, sync: bool) -> None:
        if name := self.member(place):
            if self.kind == "pubsub":  # only its own layer knows of it
                layer = self.model.channels[name].owner or 0
            self.run(self.program.leave(layer, sync, group, name))

    @rule(place=places, sync=syncs)
    def leave_all(self, place: int, sync: bool) -> None:
        name = self.member(place)
        if name and name not in NORMAL:
            self.run(self.program.leave_all(sync, name))

    @rule(layer=layers, group=groups, sync=syncs)
    def clear(self, layer: int, group: str, sync: bool) -> None:
        self.run(self.program.clear(layer, sync, group))

    # Sending

    @rule(layer=layers, place=places, sync=syncs)
    def send(self, layer: int, place: int, sync: bool) -> None:
        name = _pick(list(self.model.channels), place)  # also to one that ended
        self.run(self.program.send(layer, sync, name))

    @rule(layer=layers, to=st.lists(places, min_size=1, max_size=8), sync=syncs)
    def send_many(self, layer: int, to: list[int], sync: bool) -> None:
        names = [self.channel(place) for place in to]
        self.run(self.program.send_many(layer, sync, names))

    @rule(
        layer=layers,
        group=groups,
        exclude=st.one_of(st.just([]), st.lists(places, max_size=4)),
        sync=syncs,
    )
    def group_send(
        self, layer: int, group: str, exclude: list[int], sync: bool
    ) -> None:
        names = [self.channel(place) for place in exclude]
        self.run(self.program.group_send(layer, sync, group, names))

    @rule(layer=layers, to=st.lists(groups, min_size=1, max_size=5), sync=syncs)
    def group_send_many(self, layer: int, to: list[str], sync: bool) -> None:
        self.run(self.program.group_send_many(layer, sync, to))

    # Receiving

    @rule(layer=layers, place=places, sync=syncs)
    def receive(self, layer: int, place: int, sync: bool) -> None:
        self.run(self.program.take(self.channel(place), layer, sync))

    @rule(layer=layers, place=places, turns=st.integers(0, 5))
    def wait(self, layer: int, place: int, turns: int) -> None:
        async def wait() -> None:
            self.program.wait(self.channel(place), layer)
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(wait())

    @rule(place=places)
    def cancel(self, place: int) -> None:
        if waiters := self.program.waiters:
            self.run(self.program.cancel(_pick(waiters, place)))
            self.program.reap()

    @rule(place=places)
    def collect(self, place: int) -> None:
        if waiters := self.program.waiters:
            self.run(self.program.collect(_pick(waiters, place).name))

    # What happens to all

    @rule(layer=layers, sync=syncs)
    def flush(self, layer: int, sync: bool) -> None:
        self.run(self.following.flush(layer, sync))

    @rule(layer=layers)
    def close_pools(self, layer: int) -> None:
        self.run(self.program.close(layer))

    @rule(part=st.sampled_from([0.6, 1.2]))
    def time_passes(self, part: float) -> None:
        self.run(self.program.passes(part * EXPIRY))

    @rule(layer=layers, to=st.lists(places, min_size=1, max_size=4))
    def time_passes_while_busy(self, layer: int, to: list[int]) -> None:
        for _ in range(2):
            self.send_many(layer, to, False)
            self.run(self.program.passes(0.6 * EXPIRY))
        self.send_many(layer, to, False)

    @rule()
    def kill_clients(self) -> None:
        self.run(self.program.kill())

    @rule(group=groups)
    def process_dies(self, group: str) -> None:
        if not self.has_seen_a_death:  # to start a process takes a while
            self.has_seen_a_death = True
            self.tally["processes killed"] += 1
            self.run(process_dies(self.program, group))

    @rule(drawn=st.lists(actions, min_size=2, max_size=6), fault=faults, at=moments)
    def storm(self, drawn: list[Any], fault: str, at: int) -> None:
        found = [self._action(*one) for one in drawn]
        self.storm_with(functools.partial(storm, self.program), found, fault, at)

    @rule(
        kinds=st.lists(st.sampled_from(["join", "join", "group", "leave"]), max_size=8),
        layer=layers,
        where=st.sampled_from([HERE, ELSEWHERE]),
        place=places,
        group=groups,
        fault=faults,
        at=moments,
    )
    def change_and_send(
        self,
        kinds: list[str],
        layer: int,
        where: str,
        place: int,
        group: str,
        fault: str,
        at: int,
    ) -> None:
        """Changes of one group and messages to it begin in one event loop."""
        found = [
            self._action(kind, layer, where, place + i // 2, group, 1)
            for i, kind in enumerate([*kinds, "join", "group"])
        ]
        self.storm_with(functools.partial(storm, self.program), found, fault, at)

    def storm_with(self, make: Storm, acts: list[Any], fault: str, at: int) -> None:
        """Acts that a storm makes, with a fault that can be inflicted here."""
        if fault and not self.topology.proxies:
            fault = "kill"
        at %= 40 if fault == "kill" else 601
        self.run(make(acts, fault, at))

    def _action(
        self, kind: str, layer: int, where: str, place: int, group: str, count: int
    ) -> Action:
        name = self.member(place) if kind in CHANGES else self.channel(place)
        if name is None:
            kind, name = "send", self.channel(place)
        if kind in CHANGES and where == ELSEWHERE and self.kind == "pubsub":
            where = HERE  # the other loop takes its subscriptions with it
        return Action(kind, layer, where, name, group, count)


def _pick(several: Sequence[T], place: int) -> T:
    return several[place % len(several)]


@pytest.fixture(scope="module")
def total() -> Iterator[Counter[str]]:
    """What all programs of the module did, printed at the end."""
    counts: Counter[str] = Counter()
    yield counts
    print(f"\nall: {_line(counts)}")


def _line(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


@pytest.mark.timeout(60 + 10 * PROGRAMS)
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_programs(
    kind: str,
    topology: str,
    total: Counter[str],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR, "channels_redis_fast")
    clock, tally = Clock(), Counter[str]()
    monkeypatch.setattr(registry, "time", clock)
    monkeypatch.setattr(reconnecting, "_PROVEN", 0.0)  # what breaks comes back at once
    monkeypatch.setattr(replays, "_PATIENCE", 0.01)
    monkeypatch.setattr(replays, "_ASK_EVERY", 1.0)  # what nothing else tells
    combinations = len(KINDS) * len(TOPOLOGIES)
    options = settings(
        max_examples=max(1, PROGRAMS // combinations),
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        print_blob=False,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )
    with TOPOLOGIES[topology](request.getfixturevalue) as there:
        attributes = {"kind": kind, "topology": there, "clock": clock, "tally": tally}
        machine = seed(f"{SEED} {kind} {topology}")(
            type("Programs", (Programs,), attributes)
        )
        run_state_machine_as_test(machine, settings=options)
    total.update(tally)
    print(f"\n{kind}, {topology}: {_line(tally)}")
