"""The heartbeat of this process: it is counted, and learns of others and of losses."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from .._logs import warn
from ..client.timeouts import timeout
from ..client.topology import Address, Owns, Topology
from ..commands.census import Answer
from ..commands.errors import is_connection_loss, may_pass, value_of
from ..commands.liveness import LivenessWords, decode_answer, name_of
from ..commands.operations import Request
from .base_engine import Engine
from .engine import LoopEngine
from .memberships import Memberships
from .restoration import Loss, Repair
from .upkeep import retry_at

# A process beats when it is there for so long (seconds), a little less than a tick:
# many only run for a moment.
_FIRST = 0.9
# How long (seconds) the end of an event loop may wait for Redis to hear of it.
_LEAVE_WITHIN = 1.0
# So many numbers are tried to find a key that lies on a given node of a Cluster.
_MOST_KEYS = 500

Place = tuple[int, bytes]  # a shard's index, and a key of beats, at one of its servers

_REPORTS = {
    Loss.ALL: "Redis at %s lost data while it was connected, most likely by FLUSHDB "
    "(which the clear() of a cache sends): %s memberships were restored",
    Loss.SOME: "Redis at %s evicts keys (its maxmemory-policy is not noeviction): "
    "%s memberships were restored",
    Loss.PRUNED: "others took this process for dead, as its event loop stood still or "
    "it was cut off: at Redis at %s %s memberships were renewed",
}


class Heartbeat:
    """One layer's in this process, by whichever of its event loops is first.

    Without one, whoever calls beats, under another name: its silence means nothing. It
    beats at the server where all do, and where memberships of this process are: its
    own entry is gone there when data was lost. `about` says what the process is.
    """

    def __init__(
        self,
        words: LivenessWords,
        client_prefix: str,
        memberships: Memberships,
        about: Callable[[], dict[str, Any] | None],
    ) -> None:
        self._words = words
        self._home: Place = words.home, words.key()
        self._client_prefix = client_prefix
        self._memberships = memberships
        self._about = about
        self._engines: set[LoopEngine] = set()
        self._due = time.monotonic() + min(_FIRST, words.period)
        # By place and name: how many keys the server had evicted when it answered last;
        # None: it did not, yet.
        self._told: dict[tuple[Place, bytes], int | None] = {}
        self._owed: dict[Place, Loss] = {}  # what is to be restored
        self._keys: dict[Address | None, bytes] = {}  # by node of a Cluster: one there
        self._is_refused = False

    @property
    def is_due(self) -> bool:
        """Whether `tend` has something to do."""
        return time.monotonic() >= self._due or bool(self._words.census.removals)

    @property
    def is_known(self) -> bool:
        """Whether Redis said not long ago who is silent."""
        return self._words.census.is_known(time.monotonic())

    @property
    def _is_regular(self) -> bool:
        """Whether an event loop sees to it that it beats."""
        return any(not engine.loop.is_closed() for engine in list(self._engines))

    def attach(self, engine: LoopEngine) -> None:
        """Beats by the clock of an event loop, too, until that ends."""
        if not self._engines:
            self._due = min(self._due, time.monotonic() + _FIRST)
        self._engines.add(engine)
        engine.on_tick.append(functools.partial(self._tick, engine))
        engine.on_end.append(functools.partial(self._leave, engine))

    async def tend(self, engine: Engine) -> None:
        """Beats when it is time, and takes members of dead processes out of groups."""
        if time.monotonic() >= self._due:
            await self.beat(engine)
        if removals := self._words.census.take_removals():
            # What fails is found again by the next `group_send`.
            await engine.run_all(
                [
                    (index, command)
                    for (index, key), members in removals.items()
                    for command in self._words.prune(key, members)
                ]
            )

    async def beat(self, engine: Engine) -> None:
        """Beats, and restores what was lost; what fails is done again by the next."""
        began = time.monotonic()
        self._due = began + self._words.period
        failures = await self.learn(engine)
        try:
            failures += await self._beat(engine, list(self._find_places(engine)))
        except RedisError as error:
            failures.append(error)
        for failure in [*failures, *await self._restore(engine)]:
            self._note_failure(failure, began)

    async def learn(self, engine: Engine) -> list[Exception]:
        """Beats at home, which says who is silent, whatever other servers do.

        Returns the errors.
        """
        try:
            return await self._beat(engine, [self._home])
        except RedisError as error:
            return [error]

    async def leave(self, engine: Engine) -> None:
        """Has this process forgotten, as one that ended, until it beats again."""
        words, name = self._words, self._client_prefix.encode()
        await self._take_away_all_but(b"", engine)
        await engine.run((words.home, words.forget([name])))

    # Steps

    def _note_failure(self, error: Exception, began: float) -> None:
        if is_connection_loss(error) or may_pass(error):
            # Of an event loop nobody waits for it.
            self._due = retry_at(time.monotonic() if self._is_regular else began)
        elif not self._is_refused:
            self._is_refused = True
            warn("heartbeats are refused: %s", error)

    def _tick(self, engine: LoopEngine) -> None:
        if self.is_due:
            engine.spawn(self.tend(engine))

    async def _leave(self, engine: LoopEngine) -> None:
        """An event loop ends, and with the last one the process, as far as is known.

        Not if it has members, who are soon dead if it does end: another loop may begin.
        """
        self._engines.discard(engine)
        if self._engines or not self._told or len(self._memberships):
            return
        with suppress(RedisError, asyncio.TimeoutError):
            async with timeout(_LEAVE_WITHIN):
                await self.leave(engine)

    async def _beat(self, engine: Engine, places: list[Place]) -> list[Exception]:
        """Beats at home, or elsewhere; the errors of the servers that failed."""
        words, began, is_home = self._words, time.monotonic(), places == [self._home]
        name = name_of(self._client_prefix, is_regular=self._is_regular)
        requests: list[Request] = []
        for index, key in places:
            self._told.setdefault(((index, key), name))
            requests.append((index, words.beat(key, name, is_home=is_home)))
        if is_home and (info := self._about()) is not None:
            requests.append((words.home, words.tell(name, info)))
        replies = await engine.run_all(requests)
        answers = [
            None if isinstance(reply, Exception) else decode_answer(reply)
            for _, reply in zip(places, replies, strict=False)
        ]
        for place, answer in zip(places, answers, strict=True):
            if answer is not None:
                self._note(place, name, answer)
        if is_home and (answer := answers[0]) is not None:
            words.census.learn(answer, began)
            if answer.was_pruned and self._is_regular:
                self._note_pruned([self._home, *self._find_places(engine)])
            if answer.dropped:
                await engine.run((words.home, words.forget(answer.dropped)))
        if not is_home:
            await self._take_away_all_but(name, engine)
        return [reply for reply in replies if isinstance(reply, Exception)]

    async def _take_away_all_but(self, name: bytes, engine: Engine) -> None:
        """Takes away entries, those of other names than this one."""
        others = [one for one in list(self._told) if one[1] != name]
        if not others:
            return
        # Forgotten when they are gone: another event loop may beat meanwhile, and would
        # take it for a loss.
        self._told.update(dict.fromkeys(others))
        leave = self._words.leave
        requests = [(index, leave(key, other)) for (index, key), other in others]
        for reply in await engine.run_all(requests):
            value_of(reply)  # what failed: again with the next beat
        for one in others:
            self._told.pop(one, None)

    def _note(self, place: Place, name: bytes, answer: Answer) -> None:
        """Notes what the answer at a place says of losses."""
        if (place, name) not in self._told:
            return  # it was taken away meanwhile
        evicted, self._told[place, name] = self._told[place, name], answer.evicted
        if evicted is None:  # nothing is known of before
            pass
        elif not answer.was_there:
            self._owed[place] = Loss.ALL
        elif answer.evicted > evicted:
            self._owed.setdefault(place, Loss.SOME)

    def _note_pruned(self, places: list[Place]) -> None:
        """Members everywhere may be gone: all are judged by what is at home."""
        for place in places:
            if self._owed.get(place) is not Loss.ALL:
                self._owed[place] = Loss.PRUNED

    async def _restore(self, engine: Engine) -> list[Exception]:
        """Restores what is owed, at each place by itself; the errors of those."""
        failures: list[Exception] = []
        for place, loss in list(self._owed.items()):
            try:
                await self._restore_at(place, loss, engine)
            except RedisError as error:
                failures.append(error)
        return failures

    async def _restore_at(self, place: Place, loss: Loss, engine: Engine) -> None:
        index, key = place
        owns = _neighbours(engine.shards[index].topology, key)
        repair = self._memberships.restoration.after_loss(index, owns, loss)
        restored = await _run(engine, index, repair)
        self._owed.pop(place, None)
        if restored:
            warn(_REPORTS[loss], engine.shards[index].host, restored)

    def _find_places(self, engine: Engine) -> Iterator[Place]:
        """Where else to beat."""
        for index in self._memberships.shards():
            topology = engine.shards[index].topology
            owners = [None] if topology is None else topology.owners
            keys = (self._key_at(topology, owner) for owner in owners)
            places = [(index, key) for key in keys if key]
            yield from (place for place in places if place != self._home)

    def _key_at(self, topology: Topology | None, owner: Address | None) -> bytes | None:
        """The first key of beats that an owner has; None: it has hardly any slots."""
        if topology is None:
            return self._words.key()
        key = self._keys.get(owner)
        if key is None or topology.owner(key) != owner:
            keys = map(self._words.key, range(_MOST_KEYS))
            key = next((key for key in keys if topology.owner(key) == owner), None)
            if key is not None:
                self._keys[owner] = key
        return key


def _neighbours(topology: Topology | None, key: bytes) -> Owns:
    """Whether a key is at the same server as this one."""
    if topology is None:
        return lambda other: True
    owner = topology.owner(key)
    return lambda other: topology.owner(other) == owner


async def _run(engine: Engine, index: int, repair: Repair) -> int:
    """What a repair returns, whose commands an engine runs at a shard."""
    replies: Any = None
    while True:
        try:
            commands = repair.send(replies)
        except StopIteration as done:
            restored: int = done.value
            return restored
        replies = await engine.run_all([(index, command) for command in commands])
        for reply in replies:
            if is_connection_loss(reply):
                raise reply
