"""Followers of a group, in random interleavings of everything that may happen."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from channels_redis_fast.mailboxes.dropped import DropCounters
from channels_redis_fast.mailboxes.followers import Followers, Joining, Question
from channels_redis_fast.mailboxes.registry import LocalChannels
from channels_redis_fast.types import BEGINNING
from channels_redis_fast.wire.positions import Position, read_id

SIZE = 6  # messages that are kept
CAPACITY = 4
QUICK = 500
MANY = 20_000


@dataclass
class Redis:
    """What is kept of a group, and every message there was."""

    epoch: int = 1
    offset: int = 0
    kept: dict[int, int] = field(default_factory=dict)

    @property
    def position(self) -> Position:
        return self.epoch, self.offset

    def append(self) -> Position:
        self.offset += 1
        self.kept[self.offset] = self.offset
        self.kept.pop(self.offset - SIZE, None)
        return self.position

    def since(self, offset: int | None) -> tuple[Position, list[Any]]:
        found = sorted(one for one in self.kept if offset is not None and one > offset)
        return self.position, [
            ((self.epoch, one), item(self.epoch, one)) for one in found
        ]

    def lose(self) -> None:
        self.epoch, self.offset, self.kept = self.epoch + 1, 0, {}


def item(epoch: int, offset: int) -> tuple[Any, Any, frozenset[str]]:
    message = {"at": (epoch, offset)}
    return message, message.copy, frozenset()


@dataclass
class Asking:
    """The question of an event loop, and its answer on the way."""

    question: Question | None = None
    answer: Any = None


class Process:
    """A process whose connections lose, double and reorder what is sent to it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.redis = Redis()
        self.box = LocalChannels(
            expiry=60,
            capacity_of=lambda name: CAPACITY,
            inbox_of=lambda name: "",
            counters=DropCounters(),
            on_wait=None,
            on_end=lambda name: None,
        )
        self.followers = Followers("g", SIZE, self.box)
        self.coming: list[Position] = []
        self.loops = [Asking(), Asking()]
        self.readers: list[Reader] = []
        self.may_lose = True

    # What may happen

    def append(self) -> None:
        position = self.redis.append()
        if not (self.may_lose and self.chance.random() < 0.2):
            self.coming += [position] * self.chance.choice((1, 1, 1, 2))

    def deliver(self) -> None:
        if self.coming:
            at = self.chance.choice((0, 0, self.chance.randrange(len(self.coming))))
            position = self.coming.pop(at)
            self.followers.take(position, item(*position), None)

    def ask(self) -> None:
        loop = self.chance.choice(self.loops)
        if loop.question is None:
            loop.question = self.followers.question()

    def execute(self) -> None:
        loop = self.chance.choice(self.loops)
        if loop.question is not None and loop.answer is None:
            loop.answer = self.redis.since(loop.question.after)

    def take_answer(self) -> None:
        at = self.chance.randrange(len(self.loops))
        loop = self.loops[at]
        if loop.question is not None and loop.answer is not None:
            self.loops[at] = Asking()
            self.followers.fill(loop.question, *loop.answer, None)

    def join(self) -> None:
        if len(self.readers) < 4:
            self.readers.append(Reader(self, f"c{len(self.readers)}"))

    def read(self) -> None:
        if self.readers:
            self.chance.choice(self.readers).read()

    def look(self) -> None:
        self.followers.catch_up(None)

    def lose(self) -> None:
        if self.chance.random() < 0.1:
            self.redis.lose()

    def settle(self) -> None:
        """All that is under way comes, and all is read."""
        self.may_lose = False
        while self.coming:
            self.deliver()
        for at in range(8):
            self.look()
            loop = self.loops[at % 2]
            question = loop.question or self.followers.question()
            answer = loop.answer or self.redis.since(question.after)
            self.loops[at % 2] = Asking()
            self.followers.fill(question, *answer, None)
            for reader in self.readers:
                while reader.read():
                    self.look()


class Reader:
    """A channel that follows, and checks what it gets."""

    def __init__(self, process: Process, name: str) -> None:
        self.process = process
        self.name = process.box.new(name)
        self.place = self._choose(process.chance, process.redis)
        self.joining = Joining(self.name, self.place)
        self.at: Position | None = None
        process.followers.join(self.joining, None)

    def _choose(self, chance: random.Random, redis: Redis) -> Any:
        some = redis.epoch, chance.randint(0, redis.offset + 1)
        other = redis.epoch - 1, chance.randint(0, 9)
        return chance.choice((None, BEGINNING, "", some, some, other))

    def begin(self) -> None:
        answer = self.joining.answer
        if self.at is not None or answer is None:
            return
        self.at = answer.position[0], answer.position[1] - answer.replayed
        if isinstance(self.place, tuple) and answer.recovered:
            assert self.at == self.place
        if self.place is None or self.place == BEGINNING:
            assert answer.recovered
        if self.place == "":
            assert not answer.recovered

    def read(self) -> bool:
        self.begin()
        if not self.process.box.snapshot().get(self.name):
            return False
        entry = self.process.box.begin(self.name)
        assert isinstance(entry, tuple)
        self._check(entry[1])
        return True

    def _check(self, message: Any) -> None:
        assert self.at is not None
        if message.get("type") != "group.gap":
            assert message["at"] == (self.at[0], self.at[1] + 1)
            self.at = message["at"]
            return
        position = read_id(message["position"].partition("@")[2])
        assert position is not None
        assert position > self.at, "a gap that isn't one"
        if position[0] != self.at[0]:
            redis = self.process.redis
            is_whole = redis.epoch == position[0] and 1 in redis.kept
            assert position[1] == 0 or not is_whole
        else:
            assert self.process.redis.epoch > position[0] or (
                self.at[1] + 1 not in self.process.redis.kept
            ), "a gap that could have been filled"
        self.at = position


STEPS = ("append", "deliver", "join", "ask", "execute", "take_answer", "read", "look")


def run(seed: int) -> None:
    chance = random.Random(seed)
    process = Process(chance)
    weights = [chance.random() + 0.05 for _ in STEPS]
    for step in chance.choices((*STEPS, "lose"), (*weights, 0.1), k=40):
        getattr(process, step)()
    process.settle()
    for reader in process.readers:
        assert reader.at == process.redis.position


def test_each_gets_each_message_once_in_order_or_a_gap() -> None:
    for seed in range(QUICK):
        run(seed)


class Compared(str):
    """A name that counts how often one is compared with another."""

    __hash__ = str.__hash__
    count = 0

    def __eq__(self, other: object) -> bool:
        Compared.count += 1
        return super().__eq__(other)


def test_those_without_room_are_not_looked_for_one_by_one() -> None:
    """As many as there may be; each was compared with each."""
    box = Process(random.Random(0)).box
    names = [Compared(box.new(f"c{n}")) for n in range(50)]
    message = {"n": 1}
    Compared.count = 0
    for _ in range(CAPACITY):
        assert not box.offers.offer(names, message, message.copy, None)
    assert box.offers.offer(names, message, message.copy, None) == names
    assert Compared.count <= (CAPACITY + 2) * 2 * len(names)


@pytest.mark.slow
def test_each_gets_each_message_once_in_order_or_a_gap_in_many_interleavings() -> None:
    for seed in range(QUICK, QUICK + MANY):
        run(seed)
