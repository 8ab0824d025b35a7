"""The accounts of the check: who said what, who heard it, and what is wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

AHEAD = 4  # messages that a client may be ahead of the slowest member of its room


class Speaker:
    """What one client said, and how much of it arrived where."""

    def __init__(self, listeners: int, quota: int) -> None:
        self.listeners = listeners
        self.quota = quota
        self.said_at: list[float] = []
        self.missing: dict[int, int] = {}  # message -> deliveries not yet seen
        self.own = 0
        self.news = asyncio.Event()
        self._given_up: set[int] = set()

    def say(self) -> int:
        """Notes that the next message leaves now and returns its number."""
        number = len(self.said_at)
        self.missing[number] = self.listeners
        self.said_at.append(time.perf_counter())
        return number

    def may_say(self) -> bool:
        """Whether it saw its last, and its room is close behind."""
        under_way = len(self.missing) - len(self._given_up)
        return self.own >= len(self.said_at) and under_way < AHEAD

    def give_up(self) -> None:
        """Waits no longer for what is under way; it still counts as missing."""
        self._given_up = set(self.missing)
        self.own = len(self.said_at)

    def arrived(self, number: int) -> None:
        """Notes one delivery that had not been seen before."""
        self.missing[number] -= 1
        if not self.missing[number]:
            del self.missing[number]
            self._given_up.discard(number)
        self.news.set()


class Tally:
    """Accounts for every delivery of every message to every member of its room."""

    def __init__(self, rooms: Sequence[Sequence[int]], messages: int) -> None:
        self.rooms = rooms
        self.deliveries = 0
        self.doubled = 0
        self.reordered = 0
        self.strays = 0
        self.round_trips: list[float] = []
        self.last_news = time.perf_counter()
        clients = sum(map(len, rooms))
        self.speakers: dict[int, Speaker] = {}
        self._heard: dict[tuple[int, int], bytearray] = {}
        self._highest: dict[tuple[int, int], int] = {}
        for room in rooms:
            for client in room:
                quota = messages // clients + (client < messages % clients)
                self.speakers[client] = Speaker(len(room), quota)
                for listener in room:
                    self._heard[listener, client] = bytearray(quota)
                    self._highest[listener, client] = -1

    def hear(self, listener: int, text: str) -> None:
        """Notes that a client heard what another one said."""
        speaker, _, digits = text.partition(":")
        if not (speaker.isdecimal() and digits.isdecimal()):
            self.strays += 1
            return
        pair, number = (listener, int(speaker)), int(digits)
        said = len(self.speakers[pair[1]].said_at) if pair in self._heard else 0
        if number >= said:
            self.strays += 1
            return
        if self._heard[pair][number]:
            self.doubled += 1
            return
        self._heard[pair][number] = 1
        self.deliveries += 1
        self.last_news = time.perf_counter()
        if number < self._highest[pair]:
            self.reordered += 1
        self._highest[pair] = max(number, self._highest[pair])
        author = self.speakers[pair[1]]
        if listener == pair[1]:
            author.own = max(author.own, number + 1)
            self.round_trips.append(self.last_news - author.said_at[number])
        author.arrived(number)

    @property
    def said(self) -> int:
        """How many messages left."""
        return sum(len(speaker.said_at) for speaker in self.speakers.values())

    @property
    def lost(self) -> int:
        """How many deliveries of messages that left are missing."""
        return sum(sum(each.missing.values()) for each in self.speakers.values())

    @property
    def incomplete(self) -> int:
        """How many messages that left did not reach everybody."""
        return sum(len(speaker.missing) for speaker in self.speakers.values())

    @property
    def right(self) -> bool:
        """Whether everything was said and heard, once and in order."""
        quotas = sum(speaker.quota for speaker in self.speakers.values())
        wrong = self.lost or self.doubled or self.reordered or self.strays
        return self.said == quotas and not wrong


def quantile(values: Sequence[float], part: float) -> float:
    """Returns the value below which this part of the values lies; nan for none."""
    if not values:
        return float("nan")
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]
