"""Steps of programs that follow a group with a history, each told to its model."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from channels.exceptions import ChannelFull

from support.fleets import Caller
from support.histories import LOG, Follower, Histories, Said, place
from support.model import Broken
from support.modelled import LOSSES, TIMEOUT, Modelled, error_of
from support.polling import eventually
from support.storms import callers, heal, turns

MARK = {"type": "mark"}


class Act(NamedTuple):
    """Something that is done while other things are done."""

    kind: str
    layer: int
    place: str
    follower: int
    since: str | None
    count: int  # of messages, or turns of the event loop


class Following:
    """The followers of a program's group."""

    def __init__(self, program: Modelled, histories: Histories, capacity: int) -> None:
        self.program = program
        self.histories = histories
        # Whether all fits into a mailbox that is sent while somebody joins twice. Else
        # what shows that nothing else is there may find no room, and nobody is told.
        self.is_roomy = capacity >= 100
        self._call = program.fleet.call
        self._got: list[tuple[Follower, dict[str, Any]]] = []  # in a storm

    async def new(self, layer: int, sync: bool) -> None:
        """A channel that is to follow."""
        name = await self._call(layer, sync, "new_channel", "follower")
        self.histories.followers.append(Follower(name, layer))

    async def join(self, follower: Follower, since: str | None, by: Caller) -> None:
        """It begins to follow, or begins anew."""
        arguments = LOG, follower.name, since
        found = await self._call(follower.owner, by, "group_join", *arguments)
        self.histories.joined(follower, since, found)

    async def leave(self, follower: Follower, by: Caller) -> None:
        """It follows no more, and has got all until then."""
        await self.drain(follower)
        await self._call(follower.owner, by, "group_discard", LOG, follower.name)
        await self._mark(follower)  # a gap may have been told meanwhile
        follower.leave()

    async def forget(self, layer: int, by: Caller) -> None:
        """The history begins anew."""
        self.histories.begin_anew()
        await self._call(layer, by, "group_forget", LOG)

    async def send(self, layer: int, by: Caller, count: int) -> None:
        """Messages, one after the other."""
        for _ in range(count):
            call = self.program.model.begin_call()
            said, error = await self._send(layer, by, (call, 0))
            self._settle(said, error)

    async def _send(
        self, layer: int, by: Caller, when: tuple[int, int]
    ) -> tuple[Said, Exception | None]:
        self.program.model.numbers += 1
        number = self.program.model.numbers
        said = self.histories.begin(number, *when)
        message = {"type": "m", "n": number}
        return said, await error_of(self._call(layer, by, "group_send", LOG, message))

    def _settle(self, said: Said, error: Exception | None, fault: bool = False) -> None:
        if error is not None and not (fault and isinstance(error, LOSSES)):
            raise error
        said.is_sure = error is None

    async def page(
        self, layer: int, by: Caller, since: str | None, limit: int | None
    ) -> None:
        """What is kept, or some of it."""
        self.histories.read(
            await self._call(layer, by, "group_history", LOG, since, limit=limit)
        )

    # Receiving

    async def drain(self, follower: Follower) -> None:
        """Receives all that there is, and shows that nothing else is."""
        await self._listen(follower)
        if follower.is_sure:
            target = await self._position()
            while not follower.is_at(target):
                self.histories.got(follower, await self._receive(follower))
        await self._mark(follower)
        follower.courses = {one[-1:] for one in follower.courses}

    async def take(self, follower: Follower, count: int, by: Caller) -> None:
        """Receives some of what must come."""
        target = await self._position()
        for _ in range(count):
            if not follower.is_sure or follower.is_at(target):
                return
            self.histories.got(follower, await self._receive(follower, by))

    async def _receive(self, follower: Follower, by: Caller = False) -> dict[str, Any]:
        arguments = (follower.name, TIMEOUT) if by is True else (follower.name,)
        try:
            return await self._call(follower.owner, by, "receive", *arguments)
        except (asyncio.TimeoutError, TimeoutError):
            where = f"{follower.courses} of {await self._position()}"
            raise Broken(f"nothing came to {follower.name} at {where}") from None

    async def _listen(self, follower: Follower) -> None:
        """A Pub/Sub layer without connections hears again when somebody receives."""
        fleet, owner = self.program.fleet, follower.owner
        if fleet.is_core or fleet.listens(owner):
            return
        receiving = asyncio.ensure_future(fleet.layers[owner].receive(follower.name))
        await eventually(lambda: fleet.listens(owner), "subscriptions")
        receiving.cancel()
        await asyncio.wait([receiving], timeout=TIMEOUT)
        if not receiving.cancelled():
            self.histories.got(follower, receiving.result())

    async def _mark(self, follower: Follower) -> None:
        """Sends what comes after all the rest, and receives that.

        Somebody waits all the time: a mailbox that nobody reads may stay full.
        """
        receiving = asyncio.ensure_future(self._receive(follower))
        try:
            while isinstance(error := await self._send_mark(follower), ChannelFull):
                if receiving.done():
                    self.histories.got(follower, receiving.result())
                    receiving = asyncio.ensure_future(self._receive(follower))
            if error is not None:
                raise error
            while (message := await receiving) != MARK:
                self.histories.got(follower, message)
                receiving = asyncio.ensure_future(self._receive(follower))
        finally:
            receiving.cancel()

    async def _send_mark(self, follower: Follower) -> Exception | None:
        return await error_of(
            self._call(follower.owner, False, "send", follower.name, MARK)
        )

    async def _position(self) -> Any:
        text = await self._call(0, False, "group_position", LOG)
        self.histories.told(text)
        return place(text)

    # Many at a time

    async def storm(self, acts: list[Act], fault: str, at: int) -> None:
        """Acts at the same time, and perhaps a fault after `at` turns or bytes."""
        fleet, model = self.program.fleet, self.program.model
        await self.program.quiet()
        call = model.begin_call()
        with fleet.armed(fault, at):
            async with callers({act.place for act in acts}) as by:
                works = [
                    self._act(act, by[act.place], (call, i), bool(fault))
                    for i, act in enumerate(acts)
                ]
                breaks = [self._break(at)] if fault == "kill" else []
                results = await asyncio.gather(*works, *breaks)
        if fault:
            await heal(self.program, call)
        for follower, message in self._got:  # now that it is known where they joined
            self.histories.got(follower, message)
        self._got.clear()
        for follower in filter(None, results):
            await self._give_up(follower)

    async def _give_up(self, follower: Follower) -> None:
        """It may be a member that follows nothing, whose mailbox overflows."""
        self.histories.followers.remove(follower)
        await self._call(follower.owner, False, "group_discard", LOG, follower.name)
        self.program.model.uncounted[follower.owner] += self.program.model.numbers

    async def _break(self, count: int) -> None:
        await turns(count)
        self.program.fleet.topology.kill()

    async def _act(
        self, act: Act, by: Caller, when: tuple[int, int], fault: bool
    ) -> Follower | None:
        """Returns a follower of which it isn't known whether it joined."""
        if act.kind == "send":
            for _ in range(act.count):
                self._settle(*await self._send(act.layer, by, when), fault)
            return None
        follower = self.histories.followers[act.follower]
        if act.kind == "join":
            error = await error_of(self.join(follower, act.since, by))
            if error is not None and not (fault and isinstance(error, LOSSES)):
                raise error
            return None if error is None else follower
        await self._take_impatiently(follower, act.count)
        return None

    async def _take_impatiently(self, follower: Follower, count: int) -> None:
        """Receives, and is cancelled after some turns if nothing came."""
        for _ in range(count):
            layer = self.program.fleet.layers[follower.owner]
            receiving = asyncio.ensure_future(layer.receive(follower.name))
            await turns(count)
            receiving.cancel()
            await asyncio.wait([receiving], timeout=TIMEOUT)
            if not receiving.cancelled():
                self._got.append((follower, receiving.result()))

    # What happens to all

    async def flush(self, layer: int, sync: bool) -> None:
        """A layer flushes: its followers follow no more, and others perhaps."""
        for follower in self.histories.followers:
            await self.drain(follower)
        await self.program.flush(layer, sync)
        self.histories.begin_anew()
        for follower in list(self.histories.followers):
            if follower.owner == layer:
                follower.leave()
            elif self.program.fleet.is_core and self.is_roomy:
                follower.is_sure = False
            elif self.program.fleet.is_core:
                await self._give_up(follower)

    async def finish(self) -> None:
        """All receive what there is, and the history is looked through."""
        for follower in self.histories.followers:
            await self.drain(follower)
        self.histories.check(await self._call(0, False, "group_history", LOG))
