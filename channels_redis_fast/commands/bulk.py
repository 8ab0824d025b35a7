"""Many messages in few round trips: how they are put together, what came of each."""

from __future__ import annotations

import reprlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any, Protocol

from redis import exceptions as errors

from ..exceptions import InvalidMessage
from ..wire.codec import Message
from .history import Append
from .operations import Operations, Request, Sealed

Outcome = Exception | None
Payload = bytes | Append


class RunAll(Protocol):
    """The replies to requests written together, for a call that began then, or now."""

    def __call__(
        self, requests: list[Request], began: float = 0.0
    ) -> Awaitable[list[Any]]: ...


# No more goes into one command, which holds up the server as long as it runs.
_MOST = 500  # messages
_LARGEST = 1 << 20  # bytes


class KeyBatches:
    """Messages for channel keys, each under a number; a key's in order.

    There is one command per key and round trip, so that no retry can change the order.
    """

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._waiting: dict[tuple[int, bytes], list[tuple[int, Sealed]]] = {}

    def add(self, number: int, sealed: Sealed) -> None:
        """Adds a message."""
        self._waiting.setdefault((sealed.shard, sealed.key), []).append(
            (number, sealed)
        )

    async def run(
        self, run_all: RunAll, others: list[Request], began: float = 0.0
    ) -> tuple[list[tuple[int, Any]], list[Any]]:
        """For each message an answer or an error, by its number; the replies to others.

        An answer is 0 where there was no room. The first round trip is of a call that
        began then; each further one has as long.
        """
        found: list[tuple[int, Any]] = []
        replies: list[Any] = []
        while self._waiting or others:
            parts = self._round()
            stores = [
                self._operations.store([one for _, one in part]) for part in parts
            ]
            answers = await run_all([*stores, *others], began)
            replies += answers[len(stores) :]
            others, began = [], 0.0
            for part, answer in zip(parts, answers[: len(stores)], strict=True):
                is_error = isinstance(answer, Exception)
                if is_error:  # each further round might take as long to fail
                    part += self._rest(part[0][1])
                results = [answer] * len(part) if is_error else answer
                numbers = (number for number, _ in part)
                found += zip(numbers, results, strict=True)
        return found, replies

    def parts(self) -> Iterator[list[tuple[int, Sealed]]]:
        """What goes into each command, by number, for who doesn't wait for replies."""
        while self._waiting:
            yield from self._round()

    def _round(self) -> list[list[tuple[int, Sealed]]]:
        return [self._part(place) for place in list(self._waiting)]

    def _rest(self, sealed: Sealed) -> list[tuple[int, Sealed]]:
        return self._waiting.pop((sealed.shard, sealed.key), [])

    def _part(self, place: tuple[int, bytes]) -> list[tuple[int, Sealed]]:
        """What goes into one command; the rest waits for the next round."""
        waiting = self._waiting.pop(place)
        size = count = 0
        for _, sealed in waiting[:_MOST]:
            size += len(sealed.member)
            if count and size > _LARGEST:
                break
            count += 1
        if waiting[count:]:
            self._waiting[place] = waiting[count:]
        return waiting[:count]


class SendMany:
    """The state of one `send_many`: what is sent how, and the outcomes."""

    def __init__(self, operations: Operations, messages: Iterable[Any]) -> None:
        self.pairs = list(messages)
        self.outcomes: list[Outcome] = [None] * len(self.pairs)
        self._operations = operations
        self._channels: list[str] = [""] * len(self.pairs)
        self._parcels = KeyBatches(operations)
        self._shards: dict[str, int] = {}
        self.publications: list[tuple[int, str, Payload]] = []

    def store(self, number: int, channel: str, non_local: str, message: Any) -> None:
        """Has a message stored in a channel key."""
        sealed = self._operations.seal(channel, non_local, message)
        if not non_local.endswith("!"):
            # A normal channel may use any shard; this batch of it, the same one.
            shard = self._shards.setdefault(channel, sealed.shard)
            sealed = sealed._replace(shard=shard)
        self._channels[number] = channel
        self._parcels.add(number, sealed)

    def publish(self, number: int, name: str, payload: Payload) -> None:
        """Has a message published; the requests for these come last."""
        self.publications.append((number, name, payload))

    def give_up(self, numbers: set[int], error: Exception) -> None:
        """Publications that failed before they could be written."""
        rest = [one for one in self.publications if one[0] not in numbers]
        self.publications = rest
        for number in numbers:
            self.outcomes[number] = error

    async def post(
        self, sends: Any, began: float = 0.0, publications: Sequence[Request] = ()
    ) -> list[Outcome]:
        """Sends all and waits for no reply; the outcomes until there."""
        for part in self._parcels.parts():
            request = self._operations.store([sealed for _, sealed in part])
            numbers = [number for number, _ in part]
            posting = sends.store(request, len(part), began=began)
            await _post(self.outcomes, numbers, posting)
            began = 0.0  # it got on
        for (number, *_), request in zip(self.publications, publications, strict=True):
            await _post(self.outcomes, [number], sends.publish(request, began))
            began = 0.0
        return self.outcomes

    async def run(
        self, run_all: RunAll, began: float = 0.0, publications: Sequence[Request] = ()
    ) -> list[Outcome]:
        """Sends all; the outcomes."""
        results, replies = await self._parcels.run(run_all, list(publications), began)
        for number, result in results:
            try:
                if isinstance(result, Exception):
                    raise result
                self._operations.sent(self._channels[number], result)
            except Exception as error:
                self.outcomes[number] = error
        for (number, *_), reply in zip(self.publications, replies, strict=True):
            if isinstance(reply, Exception):
                self.outcomes[number] = reply
        return self.outcomes


class GroupSendMany:
    """The state of one `group_send_many`."""

    def __init__(self, operations: Operations, messages: Iterable[Any]) -> None:
        self.pairs = list(messages)
        self.outcomes: list[Outcome] = [None] * len(self.pairs)
        self._operations = operations
        self._bodies: list[tuple[int, str, Any]] = []

    def add(self, number: int, group: str, message: Message, check: bool) -> None:
        """Adds a message; `check`: raise now what would be raised later."""
        codec = self._operations.codec
        body = codec.body(message)
        if check:
            codec.check(body)
        self._bodies.append((number, group, body))

    async def post(self, sends: Any) -> list[Outcome]:
        """Sends all and waits for no reply; the outcomes until there."""
        groups: dict[str, dict[int, Any]] = {}
        for number, group, body in self._bodies:
            groups.setdefault(group, {})[number] = body
        for group, bodies in groups.items():
            request = self._operations.members(group)
            posting = sends.store_for_group(request, list(bodies.values()))
            await _post(self.outcomes, list(bodies), posting)
        return self.outcomes

    async def run(self, run_all: RunAll) -> list[Outcome]:
        """Asks for the members of all groups, then sends to all; the outcomes."""
        began = monotonic()
        members = await self._ask(run_all, began)
        batches = KeyBatches(self._operations)
        for number, group, body in self._bodies:
            if not isinstance(members[group], Exception):
                self._add_all(batches, number, members[group], body)
        results, _ = await batches.run(run_all, [], began)
        by_number: dict[int, list[Any]] = {}
        for number, result in results:
            by_number.setdefault(number, []).append(result)
        for number, group, _ in self._bodies:
            if self.outcomes[number] is None:
                self.outcomes[number] = self._outcome(
                    group, members[group], by_number.get(number, [])
                )
        return self.outcomes

    async def _ask(self, run_all: RunAll, began: float) -> dict[str, Any]:
        """The members of each group; errors as values."""
        operations = self._operations
        groups = dict.fromkeys(group for _, group, _ in self._bodies)
        requests = [operations.members(group) for group in groups]
        replies = await run_all(requests, began)
        return {
            group: reply
            if isinstance(reply, Exception)
            else operations.note_members(request, reply)
            for group, request, reply in zip(groups, requests, replies, strict=True)
        }

    def _add_all(
        self, batches: KeyBatches, number: int, members: list[bytes], body: Any
    ) -> None:
        try:
            sealed = self._operations.seal_all(members, body)
        except InvalidMessage as error:  # that no other message pays for
            self.outcomes[number] = error
            return
        for one in sealed:
            batches.add(number, one)

    def _outcome(self, group: str, members: Any, results: list[Any]) -> Outcome:
        if isinstance(members, Exception):
            return members
        try:
            self._operations.delivered(group, len(members), results)
        except errors.RedisError as error:
            return error
        return None


async def _post(
    outcomes: list[Outcome], numbers: list[int], posting: Awaitable[None]
) -> None:
    try:
        await posting
    except errors.RedisError as error:
        for number in numbers:
            outcomes[number] = error


def collect(
    work: SendMany | GroupSendMany, add: Callable[[int, Any, Any], None]
) -> None:
    """Adds each pair by its number; a wrong name or message is an outcome.

    Raises `TypeError` for what is no pair.
    """
    for pair in work.pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            text = f"not a pair of a name and a message: {reprlib.repr(pair)}"
            raise TypeError(text)
    for number, (name, message) in enumerate(work.pairs):
        try:
            add(number, name, message)
        except TypeError as error:
            work.outcomes[number] = error
