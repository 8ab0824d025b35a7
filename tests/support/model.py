"""What the layers promise, in plain Python: which message may arrive where, and when.

Whoever runs a program tells the model what was called and what came of it. The model
raises `Broken` when that can't be: a message lost without a stated reason, doubled, at
a wrong channel, before an earlier one of its sender, not at a member that began to join
earlier in the same event loop, refused or accepted against the capacity.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable

from support.accounts import (
    CUT,
    DROPPED,
    ENDED,
    EXPIRED,
    FLUSHED,
    FULL,
    MEMBERSHIP,
    MISSED,
    RECEIVED,
    UNSURE,
    Channel,
    Copy,
    Join,
    Key,
    Risk,
    Sent,
)


class Broken(AssertionError):
    """A promise was not kept."""


class Model:
    """The state of some layers that share servers.

    `capacity` is that of keys and mailboxes. `in_order`: messages for a channel by its
    name and by its groups come the same way. `stores`: those for channels of a process
    are stored at Redis, not published.
    """

    def __init__(
        self, *, capacity: int, expiry: float, shards: int, in_order: bool, stores: bool
    ) -> None:
        self.channels: dict[str, Channel] = {}
        self.groups: dict[str, dict[str, bool]] = {}  # members; True: for sure
        self.numbers = 0
        self.calls = 0
        self.received = 0
        self.missing: Counter[str] = Counter()
        self.dropped: Counter[int] = Counter()  # by layer: what must have been counted
        self.uncounted: Counter[int] = Counter()  # what may have been, besides
        self._capacity = capacity
        self._expiry = expiry
        self._shards = shards
        self._in_order = in_order
        self._stores = stores
        self._keys: dict[str, Key] = {}
        self._joins: dict[tuple[str, str], Join] = {}  # by group and channel

    # Channels

    def add_channel(self, name: str, owner: int | None) -> Channel:
        """A channel that a layer made, or a normal one."""
        if owner is None:
            key = Key(name, self._capacity, self._shards, is_normal=True)
        elif self._stores:
            key = Key(name[: name.index("!") + 1], self._capacity)
        else:
            key = Key(f"layer {owner}", math.inf)
        key = self._keys.setdefault(key.name, key)
        channel = Channel(name, key, owner, self._capacity, self._in_order)
        self.channels[name] = channel
        return channel

    def forget(self, name: str) -> None:
        """Nobody holds the channel's name any more."""
        self.channels[name].forgotten = (0.0, 0.0)

    def begin_receive(self, name: str) -> Channel:
        """Somebody waits on a channel."""
        channel = self.channels[name]
        if channel.owner is not None:
            channel.key.read_ahead = True
            if channel.forgotten:  # it may begin to end anew
                channel.forgotten = (0.0, channel.forgotten[1])
        channel.key.readers += 1
        return channel

    def end_receive(self, name: str) -> None:
        """Somebody doesn't wait any more."""
        self.channels[name].key.readers -= 1

    # Sending

    def begin_call(self) -> int:
        """A number for a call, and for all that run at the same time."""
        self.calls += 1
        return self.calls

    def begin_send(self, sender: object, call: int, name: str) -> Sent:
        """A message for one channel."""
        self.numbers += 1
        channel = self.channels[name]
        return self._begin(self.numbers, sender, call, name, [(channel, None)])

    def begin_group_send(
        self,
        sender: object,
        call: int,
        group: str,
        loop: object = None,
        exclude: Collection[str] = (),
    ) -> list[Sent]:
        """A message for the members of a group: one for each of their keys.

        `loop`: whose calls are written in their order, with those of joins there.
        """
        self.numbers += 1
        by_key: dict[Key, list[tuple[Channel, str | None]]] = {}
        for name, sure in self.groups.get(group, {}).items():
            if name in exclude:
                continue
            channel = self.channels[name]
            member = channel, None if sure else MEMBERSHIP
            by_key.setdefault(channel.key, []).append(member)
        number, parts = self.numbers, by_key.values()
        sents = [self._begin(number, sender, call, group, part) for part in parts]
        for copy in (copy for sent in sents for copy in sent.copies):
            join = self._joins.get((group, copy.channel.name))
            if join is not None and join.loop == loop:
                join.copies.append(copy)
        return sents

    def _begin(
        self,
        number: int,
        sender: object,
        call: int,
        lane: str,
        to: list[tuple[Channel, str | None]],
    ) -> Sent:
        key = to[0][0].key
        if key.shards > 1:
            sender = number  # each shard has its own order
        elif not self._in_order:
            sender = sender, lane
        sent = Sent(number, key, sender, call, lane, lane in self.groups, self._expiry)
        for channel, doubt in to:
            copy = Copy(sent, channel, doubt if channel.is_live else ENDED)
            sent.copies.append(copy)
            channel.pending.append(copy)
        key.stored.append(sent)
        return sent

    def accept(self, sent: Sent) -> None:
        """The call returned; of a group's members those who were full miss it."""
        key = sent.key
        if key.least(sent) >= key.capacity:
            if not sent.is_for_group:
                raise Broken(f"{key.name} took more than its capacity")
            self._gone(sent, FULL)
            return
        is_sure = not sent.is_for_group or key.most(sent) < key.capacity
        sent.doubt = None if is_sure else FULL
        self._overflow(sent)
        if is_sure and key.shards == 1 and not key.read_ahead and not key.readers:
            for old in [s for s in key.stored if s.is_old]:
                self._gone(old, EXPIRED)

    def refuse(self, sent: Sent) -> None:
        """The call raised `ChannelFull`."""
        key = sent.key
        if key.most(sent) < key.capacity:
            text = f"{key.name} was full with {key.most(sent)} of {key.capacity}"
            raise Broken(text)
        self._gone(sent, "refused")

    def unsure(self, sent: Sent) -> None:
        """The call raised `ConnectionError`: it may arrive, at any time."""
        sent.doubt, sent.sender = UNSURE, object()
        self._overflow(sent)

    def _overflow(self, sent: Sent) -> None:
        for copy in sent.copies:
            copy.channel.overflow()

    # Receiving

    def receive(self, name: str, number: int, *, alone: bool = True) -> None:
        """A message came; `alone`: to the only reader of the channel at the time."""
        channel = self.channels[name]
        found = [copy for copy in channel.pending if copy.sent.number == number]
        if not found:
            what = channel.history.get(number, "it was not sent there")
            raise Broken(f"{name} got {number}: {what}")
        sent = found[0].sent
        channel.history[number] = RECEIVED
        if alone:
            for copy in list(channel.pending):
                if copy.sent.is_before(sent):
                    self.miss(copy)
        channel.pending.remove(found[0])
        self.received += 1
        key = sent.key
        earlier = {s for s in key.stored if s.call < sent.call and key.shards == 1}
        key.stored = [s for s in key.stored if s is not sent and s not in earlier]
        key.notices = [call for call in key.notices if call > sent.call]

    def miss(self, copy: Copy) -> None:
        """A message did not come; raises unless there is a reason."""
        channel, number = copy.channel, copy.sent.number
        reason = self._reason(copy)
        if reason is None:
            raise Broken(f"{channel.name}: {number} was lost, or overtaken")
        channel.pending.remove(copy)
        self._note(channel, number, reason)

    def miss_all(self, name: str) -> None:
        """Nothing more will come to a channel."""
        for copy in list(self.channels[name].pending):
            self.miss(copy)

    def missing_at(self, owner: int) -> int:
        """How much did not come to the channels of a layer."""
        ours = [one for one in self.channels.values() if one.owner == owner]
        missing = [what for one in ours for what in one.history.values()]
        return sum(what != RECEIVED for what in missing) + self.uncounted[owner]

    def _reason(self, copy: Copy) -> str | None:
        channel, sent = copy.channel, copy.sent
        doubt = sent.doubt or copy.doubt
        counts = channel.in_order and not sent.risks  # else it may yet come
        if doubt == DROPPED and channel.owner is not None and counts:
            self.dropped[channel.owner] += not sent.is_old
        if doubt or sent.is_old:
            return doubt or EXPIRED
        for risk in sent.risks:
            if sent.is_paid or risk.left > 0:
                risk.left -= not sent.is_paid
                sent.is_paid = True
                return risk.reason
        return None

    def _gone(self, sent: Sent, reason: str) -> None:
        """None of its copies may come any more."""
        for copy in sent.copies:
            if copy in copy.channel.pending:
                copy.channel.pending.remove(copy)
                self._note(copy.channel, sent.number, reason)
            elif reason == "refused":
                raise Broken(f"{copy.channel.name} got {sent.number}: {reason}")
        if sent in sent.key.stored:
            sent.key.stored.remove(sent)

    def _note(self, channel: Channel, number: int, reason: str) -> None:
        channel.history[number] = reason
        self.missing[reason] += 1

    # Groups

    def set_member(self, group: str, name: str, state: bool | None) -> None:
        """A channel is in a group (True), may be (False), or isn't (None)."""
        members = self.groups.setdefault(group, {})
        members.pop(name, None)
        if state is not None:
            members[name] = state

    def clear(self, group: str) -> None:
        """A group was cleared; where messages are stored, its processes were told."""
        call = self.begin_call()
        members = self.groups.pop(group, {})
        for key in {self.channels[name].key for name in members}:
            if self._stores and not key.is_normal:
                key.notices.append(call)

    def begin_join(self, group: str, name: str, loop: object) -> Join:
        """A channel is being added to a group, which it may not be in yet."""
        join = self._joins[group, name] = Join(loop)
        return join

    def begin_leave(self, group: str, name: str) -> None:
        """A channel is being taken out of a group."""
        self._joins.pop((group, name), None)

    def end_joins(self, returned: Iterable[Join]) -> None:
        """All are over; with those that returned, what began later goes there."""
        self._joins.clear()
        for copy in (copy for join in returned for copy in join.copies):
            if copy.doubt == MEMBERSHIP:
                copy.doubt = None

    # What happens to all

    def flush(self, layer: int) -> None:
        """A layer flushed at a quiet moment; what others have received stays."""
        for channel in self.channels.values():
            ours = channel.owner in (layer, None)
            if not ours and not self._stores:
                continue
            for copy in list(channel.pending):
                if ours and copy.is_sure:
                    channel.pending.remove(copy)
                    self._note(channel, copy.sent.number, FLUSHED)
                else:  # with somebody who waits, or in another layer's mailbox
                    copy.doubt = FLUSHED
            key = channel.key
            key.stored = [sent for sent in key.stored if sent.doubt]
            key.notices.clear()
        for members in self.groups.values():
            for name in list(members):
                if self._stores or self.channels[name].owner == layer:
                    del members[name]

    def broke(self, call: int) -> None:
        """Connections broke during a call: each key may lose a batch of a reader.

        What was published in the call may be lost, too.
        """
        for key in self._keys.values():
            if key.capacity == math.inf:
                risk = Risk(math.inf, MISSED)
                at_risk = [sent for sent in key.stored if sent.call >= call]
            else:
                # Of a normal channel each `receive` may read one, on every shard.
                normal = key.readers * key.shards
                batch = normal if key.is_normal else key.capacity + 1
                risk = Risk(batch, CUT)
                at_risk = key.stored if key.read_ahead or key.readers else []
            for sent in at_risk:
                sent.risks.append(risk)

    def passes(self, seconds: float, waited_on: set[str]) -> list[Channel]:
        """Time passes; the channels that must have ended."""
        ended = []
        channels = self.channels.values()
        for sent in {copy.sent for channel in channels for copy in channel.pending}:
            sent.age += seconds
        for channel in channels:
            if channel.forgotten is None or not channel.is_live:
                continue
            if channel.name in waited_on:
                channel.forgotten = (0.0, 0.0)
                continue
            least, most = (since + seconds for since in channel.forgotten)
            channel.forgotten = least, most
            if most > self._expiry:
                self._end(channel)
                ended += [channel] if least > self._expiry else []
        return ended

    def _end(self, channel: Channel) -> None:
        channel.is_live = False
        for copy in channel.pending:
            copy.doubt = ENDED
        for members in self.groups.values():
            if channel.name in members:
                members[channel.name] = False
