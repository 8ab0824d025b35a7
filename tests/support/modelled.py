"""Calls to a fleet of layers, each told to the model with what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from channels.exceptions import ChannelFull
from redis import exceptions as errors

from support.accounts import Channel, Sent
from support.fleets import Caller, Fleet
from support.model import Broken, Model
from support.polling import eventually

TIMEOUT = 20.0  # seconds; for what has to happen at once
DROPPED = "dropped, the consumer doesn't read"

# What was sent, with what was raised.
Outcome = tuple[list[Sent], Exception | None]


@dataclass(eq=False)
class Waiter:
    """A `receive` that goes on."""

    name: str
    task: asyncio.Task[Any]
    is_alone: bool = True  # no other waited on the channel at any time


class Modelled:
    """Two layers and the model of what they promise."""

    def __init__(self, fleet: Fleet, model: Model) -> None:
        self.fleet = fleet
        self.model = model
        self.held: dict[str, str] = {}  # the name objects that keep channels alive
        self.waiters: list[Waiter] = []

    # Channels and groups

    async def new_channel(self, layer: int, sync: bool, prefix: str) -> None:
        """A channel of a layer."""
        held = await self.fleet.call(layer, sync, "new_channel", prefix)
        self.model.add_channel(str(held), layer)
        self.held[str(held)] = held

    def forget(self, name: str) -> None:
        """Lets the name object go."""
        del self.held[name]
        self.model.forget(name)

    async def join(self, sync: bool, group: str, name: str) -> None:
        """A channel's own layer adds it to a group."""
        await self._before_a_change()
        owner = self.model.channels[name].owner or 0
        await self.fleet.call(owner, sync, "group_add", group, name)
        self.model.set_member(group, name, True)

    async def leave(self, layer: int, sync: bool, group: str, name: str) -> None:
        """A layer takes a channel out of a group."""
        await self._before_a_change()
        await self.fleet.call(layer, sync, "group_discard", group, name)
        self.model.set_member(group, name, None)

    async def leave_all(self, sync: bool, name: str) -> None:
        """A channel's own layer takes it out of all groups."""
        await self._before_a_change()
        owner = self.model.channels[name].owner or 0
        left = await self.fleet.call(owner, sync, "group_discard_all", name)
        groups = self.model.groups.values()
        states = [members[name] for members in groups if name in members]
        if not sum(states) <= left <= len(states):
            raise Broken(f"{name} left {left} groups of {states}")
        for group in list(self.model.groups):
            self.model.set_member(group, name, None)

    async def clear(self, layer: int, sync: bool, group: str) -> None:
        """A layer takes all members out of a group."""
        await self._before_a_change()
        await self.fleet.call(layer, sync, "group_clear", group)
        self.model.clear(group)
        if not self.fleet.is_core:
            await eventually(
                lambda: not any(self.fleet.hears(i, group) for i in (0, 1)),
                f"both to leave {group}",
            )
        self.check_groups()

    async def _before_a_change(self) -> None:
        if not self.fleet.is_core:
            # What is published reaches those who are in the group when it arrives.
            await self.quiet()

    # Sending

    async def send(self, layer: int, sync: bool, name: str) -> None:
        """One message to a channel."""
        call = self.model.begin_call()
        self.settle(await self.begin_send((layer, 0), call, sync, name))

    async def group_send(
        self, layer: int, sync: bool, group: str, exclude: Collection[str] = ()
    ) -> None:
        """One message to a group, but for some channels."""
        call = self.model.begin_call()
        members = self.model.groups.get(group, {}).items()
        states = [sure for name, sure in members if name not in exclude]
        sents = self.model.begin_group_send((layer, 0), call, group, exclude=exclude)
        message = {"type": "m", "n": self.model.numbers}
        result = await self.fleet.call(
            layer, sync, "group_send", group, message, exclude=exclude
        )
        self.settle((sents, None))
        if self.fleet.is_core and not sum(states) <= result.members <= len(states):
            raise Broken(f"{group} has {result} of {states}")

    async def send_many(self, layer: int, sync: bool, names: list[str]) -> None:
        """Messages to channels, in one call."""
        call = self.model.begin_call()
        sents = [self.model.begin_send((layer, 0), call, name) for name in names]
        pairs = [(n, _message(s)) for n, s in zip(names, sents, strict=True)]
        outcomes = await self.fleet.call(layer, sync, "send_many", pairs)
        for sent, error in refused_first(zip(sents, outcomes, strict=True)):
            self.settle(([sent], error))

    async def group_send_many(self, layer: int, sync: bool, groups: list[str]) -> None:
        """Messages to groups, in one call."""
        model, call = self.model, self.model.begin_call()
        parts, pairs = [], []
        for group in groups:
            parts.append(model.begin_group_send((layer, 0), call, group))
            pairs.append((group, {"type": "m", "n": model.numbers}))
        outcomes = await self.fleet.call(layer, sync, "group_send_many", pairs)
        for sents, error in zip(parts, outcomes, strict=True):
            self.settle((sents, error))

    async def begin_send(
        self, sender: Any, call: int, by: Caller, name: str
    ) -> Outcome:
        sent = self.model.begin_send(sender, call, name)
        sending = self.fleet.call(sender[0], by, "send", name, _message(sent))
        return [sent], await error_of(sending)

    async def begin_group_send(
        self, sender: Any, call: int, by: Caller, group: str
    ) -> Outcome:
        loop = None if by is True else (sender[0], by)
        sents = self.model.begin_group_send(sender, call, group, loop)
        message = {"type": "m", "n": self.model.numbers}
        sending = self.fleet.call(sender[0], by, "group_send", group, message)
        return sents, await error_of(sending)

    def settle(self, outcome: Outcome, *, fault: bool = False) -> None:
        """Tells the model what came of a call; with a `fault` it may have failed."""
        sents, error = outcome
        if error is None:
            tell = self.model.accept
        elif isinstance(error, ChannelFull):
            tell = self.model.refuse
        elif fault and isinstance(error, LOSSES):
            tell = self.model.unsure
        else:
            raise error
        for sent in sents:
            tell(sent)

    # Receiving

    async def take(self, name: str, layer: int, sync: bool) -> bool:
        """Receives what must be there, or shows that nothing is.

        Returns whether a mark was sent, after which nothing comes that was there.
        """
        if self.waiters_on(name):
            await self.collect(name)
            return False
        channel = self.model.begin_receive(name)
        index = layer if channel.owner is None else channel.owner
        arguments = (name, TIMEOUT) if sync else (name,)
        receiving = asyncio.ensure_future(
            self.fleet.call(index, sync, "receive", *arguments)
        )
        try:
            marks = not channel.has_next
            marked = marks and await self._mark(name, 1 - index, receiving)
            message = await receiving
        except (asyncio.TimeoutError, TimeoutError):
            raise Broken(f"nothing came to {name}") from None
        finally:
            self.model.end_receive(name)
        self.model.receive(name, message["n"])
        return marked

    async def _mark(
        self, name: str, layer: int, receiving: asyncio.Future[Any]
    ) -> bool:
        """Sends what comes after all the rest; False if the channel was too full."""
        while not receiving.done():
            call = self.model.begin_call()
            outcome = await self.begin_send((layer, "mark"), call, False, name)
            self.settle(outcome)
            if outcome[1] is None:
                return True
            await asyncio.sleep(0)
        return False

    def wait(self, name: str, layer: int) -> Waiter:
        """Begins to receive."""
        channel = self.model.begin_receive(name)
        index = layer if channel.owner is None else channel.owner
        task = asyncio.ensure_future(self.fleet.layers[index].receive(name))
        waiter = Waiter(name, task)
        others = [one for one in self.waiters_on(name) if not one.task.cancelled()]
        for one in (waiter, *others):
            one.is_alone &= not others
        self.waiters.append(waiter)
        return waiter

    def waiters_on(self, name: str) -> list[Waiter]:
        """Those who wait on a channel, or did until now."""
        return [waiter for waiter in self.waiters if waiter.name == name]

    async def cancel(self, waiter: Waiter) -> None:
        """Ends a `receive`, which may have been done already."""
        waiter.task.cancel()
        await asyncio.wait([waiter.task], timeout=TIMEOUT)

    def reap(self) -> None:
        """Tells the model what those got who don't wait any more."""
        done = [waiter for waiter in self.waiters if waiter.task.done()]
        got = []
        for waiter in done:
            self.waiters.remove(waiter)
            self.model.end_receive(waiter.name)
            if not waiter.task.cancelled():
                got.append((waiter.task.result()["n"], waiter))
        for number, waiter in sorted(got, key=lambda pair: pair[0]):
            self.model.receive(waiter.name, number, alone=waiter.is_alone)

    async def collect(self, name: str) -> None:
        """Waits until those on a channel have got what there is."""
        self.reap()
        while self.waiters_on(name) and self.model.channels[name].has_next:
            tasks = [waiter.task for waiter in self.waiters_on(name)]
            first = asyncio.FIRST_COMPLETED
            done, _ = await asyncio.wait(tasks, timeout=TIMEOUT, return_when=first)
            if not done:
                raise Broken(f"nothing came to those who wait on {name}")
            self.reap()

    # Quiet moments

    async def quiet(self) -> None:
        """Returns when all messages are where they stay."""
        await eventually(self._is_quiet, "all to be where it stays", timeout=TIMEOUT)

    def _is_quiet(self) -> bool:
        self.reap()
        waiting = [self.fleet.waiting(index) for index in (0, 1)]
        return all(self._is_settled(c, waiting) for c in self.model.channels.values())

    def _is_settled(
        self, channel: Channel, waiting: list[dict[str, list[int]]]
    ) -> bool:
        there: list[int] = []
        if channel.owner is not None:
            there = waiting[channel.owner].get(channel.name, [])
            if len(there) > channel.capacity:
                raise Broken(f"{len(there)} messages wait for {channel.name}")
        stored = self.fleet.stored(channel)
        if stored and (channel.key.readers or self.fleet.is_moving(channel)):
            return False
        sure = {copy.sent.number for copy in channel.pending if copy.is_sure}
        return sure <= stored.union(there)

    def check_groups(self) -> None:
        """Compares the groups with what the core layer has stored."""
        for group, members in self.model.groups.items() if self.fleet.is_core else ():
            actual = self.fleet.members(group)
            sure = {name for name, is_sure in members.items() if is_sure}
            if not sure <= actual <= members.keys():
                raise Broken(f"{group} has {actual}, not {members}")

    async def kill(self) -> None:
        """All connections break at a quiet moment, when there is nothing to lose."""
        await self.quiet()
        before = self.fleet.connections()
        self.fleet.topology.kill()
        await self.fleet.whole(before)
        self.check_groups()

    async def close(self, layer: int) -> None:
        """A layer closes its connections."""
        await self.quiet()
        await self.fleet.call(layer, False, "close_pools")
        await self.listen(layer)

    async def flush(self, layer: int, sync: bool) -> None:
        """A layer flushes, at a quiet moment."""
        await self.quiet()
        await self.fleet.call(layer, sync, "flush")
        self.model.flush(layer)
        self.check_groups()
        await self.listen(layer)

    async def listen(self, layer: int) -> None:
        """A Pub/Sub layer without connections hears again when somebody receives."""
        channels = self.model.channels.values()
        ours = [one for one in channels if one.owner == layer and one.is_live]
        if ours and not self.fleet.is_core:
            waiter = self.wait(ours[0].name, layer)
            await eventually(lambda: self.fleet.listens(layer), "subscriptions")
            await self.cancel(waiter)
            self.reap()

    async def passes(self, seconds: float) -> None:
        """Time passes, at a quiet moment."""
        await self.quiet()
        self.fleet.passes(seconds, self.model.channels.values())
        waited_on = {waiter.name for waiter in self.waiters}
        for channel in self.model.passes(seconds, waited_on):
            await self._ended(channel)

    async def _ended(self, channel: Channel) -> None:
        layer = self.fleet.layers[channel.owner or 0]
        if channel.name in layer._mailboxes:
            raise Broken(f"{channel.name} did not end")
        for group, members in self.model.groups.items():
            if channel.name in members:
                if self.fleet.is_core:
                    await eventually(
                        lambda g=group: channel.name not in self.fleet.members(g),
                        f"{channel.name} to leave {group}",
                    )
                self.model.set_member(group, channel.name, None)

    # The end

    async def finish(self) -> None:
        """Receives all that there is, and compares the accounts."""
        for waiter in self.waiters:
            await self.cancel(waiter)
        self.reap()
        for channel in self.model.channels.values():
            await self._drain(channel)
        self.check_groups()
        for index, layer in enumerate(self.fleet.layers):
            counters, least = layer.counters, self.model.dropped[index]
            if not least <= counters.get(DROPPED, 0) <= self.model.missing_at(index):
                raise Broken(f"{least} messages were dropped, counted: {counters}")
            if "unreadable" in counters:
                raise Broken(f"unreadable messages: {counters}")

    async def _drain(self, channel: Channel) -> None:
        if channel.is_live:
            # Two for each shard come after all that is there already.
            marks = 2 * channel.key.shards if channel.key.shards > 1 else 1
            while marks or channel.has_next:
                marks -= await self.take(channel.name, marks % 2, False) and marks > 0
        self.model.miss_all(channel.name)


LOSSES = (errors.ConnectionError, errors.TimeoutError)


def _message(sent: Sent) -> dict[str, Any]:
    return {"type": "m", "n": sent.number}


def refused_first(outcomes: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """What was not sent takes nobody's place: the model hears of it first."""
    return sorted(outcomes, key=lambda outcome: not isinstance(outcome[1], ChannelFull))


async def error_of(work: Awaitable[Any]) -> Exception | None:
    try:
        await work
    except Exception as error:
        return error
    return None
