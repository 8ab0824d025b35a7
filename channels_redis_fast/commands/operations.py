"""What to say to Redis for each method and what the answer means; no I/O."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, NamedTuple

from channels.exceptions import ChannelFull
from redis import exceptions as errors

from .._counting import Messages
from .._logs import inform
from .._settings import Settings
from ..types import SendResult
from ..wire._fanout import bundle
from ..wire.codec import MOST_CHANNELS, Codec, Message
from .command import Command
from .liveness import LivenessWords
from .scripts import (
    EVALSHA,
    JOIN,
    MEMBERS,
    PUT_BACK,
    REFRESH,
    SEND,
    SEND_MANY,
    arguments_of,
    key_of,
    number,
)

# A shard's index and a command for it.
Request = tuple[int, Command]


# As SendResult, whose constructor is felt: one object for all that say the same.
send_result = functools.lru_cache(1024)(SendResult)

_REMEMBERED = 10_000  # groups
_CLEAN_FOR = 1.0  # seconds that a group is read without a look at how old members are


class Sealed(NamedTuple):
    """A message on its way to a channel key, which may hold `capacity` messages.

    The capacity is as commands have it.
    """

    shard: int
    key: bytes
    member: bytes
    capacity: bytes


class Operations:
    """The commands of a layer with these settings, for whoever runs them.

    `shard_of` maps the non-local part of a channel name, or a group's name, to the
    index of one of so many `shards`; `group_key` a group's name to its key. The
    `messages` are counted.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        codec: Codec,
        shards: int,
        shard_of: Callable[[str], int],
        capacity_of: Callable[[str], int],
        group_key: Callable[[str], bytes],
        messages: Messages,
    ) -> None:
        self.codec = codec
        self.messages = messages
        self.group_key = group_key
        self.shard_of = shard_of
        self.liveness = LivenessWords(settings, shard_of)
        self._prefix = settings.prefix.encode()
        self._expiry = number(settings.expiry)
        self._group_expiry = number(settings.group_expiry)
        self._capacity_of = capacity_of
        self._next_shard = itertools.cycle(range(shards)).__next__
        self._clean_for = min(_CLEAN_FOR, settings.group_expiry / 10)
        # By the keys of groups, in this process's time.
        self._clean_until: dict[bytes | str, float] = {}

    def channel_key(self, non_local: str) -> bytes:
        """The key of a channel, by the non-local part of its name."""
        return self._prefix + non_local.encode()

    # To one channel

    def send(self, channel: str, non_local: str, message: Message) -> Request:
        """Adds a message to a channel, whose non-local part is given."""
        codec, key = self.codec, self.channel_key(non_local)
        body = codec.body(message)
        if non_local.endswith("!"):
            index = self.shard_of(non_local)
            member = codec.seal(body, channel, key)
        else:  # a normal channel: any shard will do
            index = self._next_shard()
            member = codec.seal(body, None, key)
        capacity = number(self._capacity_of(channel))
        return index, SEND.on(key, member, capacity, self._expiry)

    def seal(self, channel: str, non_local: str, message: Message) -> Sealed:
        """As `send`, for a command that takes several messages."""
        index, command = self.send(channel, non_local, message)
        key, member, capacity, _ = arguments_of(command)
        return Sealed(index, key, member, capacity)

    def store(self, sealed: list[Sealed]) -> Request:
        """Adds messages to one key, in order; the reply says of each what SEND does."""
        index, key, *_ = sealed[0]
        pairs = [part for one in sealed for part in (one.capacity, one.member)]
        return index, SEND_MANY.on(key, self._expiry, *pairs)

    def put_back(self, key: bytes, entries: Iterable[tuple[bytes, bytes]]) -> Command:
        """Puts (member, score) pairs that were popped back at their places."""
        pairs = [part for member, score in entries for part in (score, member)]
        return PUT_BACK.on(key, self._expiry, *pairs)

    def sent(self, channel: str, reply: Any) -> None:
        """Raises `ChannelFull` when the channel was; None: nobody waited for it."""
        if reply == 0:
            next(self.messages.full_channels)
            raise ChannelFull(f"channel {channel} is at capacity")

    # To a group

    def count(self, non_local: str) -> Command:
        """Asks how many messages a channel key has."""
        return b"ZCARD", self.channel_key(non_local)

    def members(self, group: str) -> Request:
        """Asks for a group's members.

        For a second after old ones were removed, these are read as they are.
        """
        key = self.group_key(group)
        if monotonic() < self._clean_until.get(key, 0.0):
            return self.shard_of(group), (b"ZRANGE", key, b"0", b"-1")
        return self.shard_of(group), MEMBERS.on(key, self._group_expiry)

    def note_members(self, request: Request, members: list[bytes]) -> list[bytes]:
        """Takes members that came by a request of `members`, and no error.

        Only then old ones are removed: a replica would refuse that, and let its own
        members be read, as if there were no others. Then it is looked, too, whose
        processes are dead; the others are to be sent to.
        """
        index, command = request
        if command[0] is not EVALSHA:
            return members
        key, now = key_of(command), monotonic()
        if len(self._clean_until) >= _REMEMBERED:
            self._clean_until.clear()
        self._clean_until[key] = now + self._clean_for
        return self.liveness.census.without_dead(index, key, members, now)

    def deliveries(self, members: list[bytes], message: Any) -> list[Request]:
        """One command for each process that has members; `message` is a codec's body.

        A name that nobody could have sent to is left out.
        """
        return [
            (shard, SEND.on(key, member, capacity, self._expiry))
            for shard, key, member, capacity in self.seal_all(members, message)
        ]

    def seal_all(self, members: list[bytes], message: Any) -> list[Sealed]:
        """As `deliveries`, for commands that take several messages."""
        sealed = []
        for non_local, found in bundle(members).items():
            channels = _decodable(found)
            for start in range(0, len(channels), MOST_CHANNELS):
                part = channels[start : start + MOST_CHANNELS]
                sealed.append(self._sealed(message, non_local, part))
        return sealed

    def _sealed(self, message: Any, non_local: bytes, channels: list[bytes]) -> Sealed:
        key = self._prefix + non_local
        member = self.codec.seal_list(message, channels, key)
        capacity = number(self._capacity_of(channels[0].decode()))
        return Sealed(self.shard_of(non_local.decode()), key, member, capacity)

    def delivered(self, group: str, members: int, replies: list[Any]) -> SendResult:
        """Logs full channels; raises the first error that a delivery got."""
        failures = []
        try:
            if min(replies, default=1) > 0:
                return send_result(members, len(replies), 0)
        except TypeError:  # there are errors among them
            failures = [r for r in replies if isinstance(r, errors.RedisError)]
        full = sum(reply == 0 for reply in replies)
        if full:
            self.messages.full_members.add(full)
            text = "%s of %s channels over capacity in group %s"
            inform(text, full, members, group)
        if failures:
            raise failures[0]
        return SendResult(members, len(replies), full)

    # Membership

    def join(self, group: str, channel: str) -> Request:
        """Adds a channel to a group, or makes its membership new."""
        command = JOIN.on(self.group_key(group), self._group_expiry, channel)
        return self.shard_of(group), command

    def leave(self, group: str, *channels: str) -> Request:
        """Takes channels out of a group."""
        return self.shard_of(group), (b"ZREM", self.group_key(group), *channels)

    def ask(self, group: str, channel: str) -> Command:
        """Asks whether a channel is in a group."""
        return (b"ZSCORE", self.group_key(group), channel)

    def rejoin(self, group: str, channels: list[str]) -> Command:
        """Adds channels to a group."""
        return JOIN.on(self.group_key(group), self._group_expiry, *channels)

    def refresh(self, group: str, channels: list[str]) -> Request:
        """Makes memberships new that are still there."""
        command = REFRESH.on(self.group_key(group), self._group_expiry, *channels)
        return self.shard_of(group), command

    # All

    def flush_pattern(self) -> bytes:
        """A glob that matches every key of the layer, and no more than its prefix."""
        special = b"\\*?[]^-"
        escaped = b"".join(
            b"\\" + bytes((c,)) if c in special else bytes((c,)) for c in self._prefix
        )
        return escaped + b"*"


def _decodable(names: list[bytes]) -> list[bytes]:
    """Those that are UTF-8: others may write to a group, too."""
    return names if b"".join(names).isascii() else list(filter(_is_text, names))


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
