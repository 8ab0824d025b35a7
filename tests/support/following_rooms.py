"""A room whose channels follow a group with a history, and nothing else."""

from __future__ import annotations

from typing import Any

from support.accounting import MEMBERS, Room, at_last
from support.following import GROUP, Course, plain
from support.ledger import ACCEPTED, Addressee, FollowersLedger

HISTORY = {"room-*": (10_000, 300)}  # more than any fault takes


class FollowingRoom(Room):
    """Its addressees get all that is accepted, or are told of a gap in its place."""

    def __init__(self, readers: list[Any], sender: Any) -> None:
        super().__init__(readers, sender)
        self.ledger = FollowersLedger()
        self._courses: dict[int, Course] = {}  # by addressee

    async def _fill(self) -> None:
        group = self._sources("group", GROUP)
        for number, layer in enumerate(self.readers):
            for _ in range(MEMBERS):
                name = await at_last(layer.new_channel)
                self.channels.append(name)
                since = await at_last(layer.group_position, GROUP)
                await at_last(layer.group_join, GROUP, name, since)
                addressee = Addressee(f"process {number}", group)
                self._courses[id(addressee)] = Course(since)
                self._receive(layer, name, addressee)
        self._begin(group, self.sender.group_send, GROUP)

    def _outcome(self) -> str:
        return ACCEPTED  # whose process was full gets it later

    def _read(self, one: Addressee, message: dict[str, Any]) -> dict[str, Any] | None:
        """As it was sent; notes a gap, and raises what is out of order."""
        if self._courses[id(one)].note(message):
            return plain(message)
        one.gaps.append(len(one.got))
        return None
