"""What a layer tells of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import _overload
from ._liveness import Liveness
from .client.pinging import ping_blocking, ping_shards
from .commands.operations import Request
from .commands.scripts import arguments_of
from .runtime.engine import LoopEngine
from .runtime.host_stats import host_stats, names_of
from .runtime.loops import weakly
from .runtime.unconfirmed_engine import UnconfirmedEngine
from .types import HostStats, Ping, Stats


class Observing(Liveness):
    """The methods by which a layer tells what it does."""

    def stats(self) -> Stats:
        """What this layer did in this process so far, and what it has now.

        Asks nobody, so it may be called at any time, from any thread. A forked child
        begins at zero.
        """
        messages, mailboxes = self._messages, self._mailboxes
        received = mailboxes.received + messages.received.value
        memberships, subscriptions = self._joined()
        return Stats(
            sent={
                "channel": messages.to_channels.value,
                "group": messages.to_groups.value,
            },
            full={
                "channel": messages.full_channels.value,
                "group": messages.full_members.value,
            },
            received=received,
            delivered=received + mailboxes.copies,
            dropped=self.counters,
            mailboxes=len(mailboxes),
            waiting=mailboxes.owners.waiting(),
            memberships=memberships,
            subscriptions=subscriptions,
            processes=self._operations.liveness.census.living,
            hosts=self._host_stats(),
        )

    async def ping(self) -> list[Ping]:
        """What each server of `hosts` answers, within `command_timeout`.

        Of a Cluster each node that has slots. Raises nothing: a host that can't be
        reached has an `error`.
        """
        local = self._loops.engine_for_call()
        if local is None:
            found = ping_blocking(self._blocking.shards, self.command_timeout)
        else:
            found = await ping_shards(local.shards, self.command_timeout)
        up = self._subscribers_up()
        return [ping._replace(subscriber=up.get(ping.host)) for ping in found]

    # Signals; see signals.py

    def _make_engine(self, *args: Any) -> LoopEngine:
        engine, note_fills = super()._make_engine(*args), weakly(self._note_fills)
        engine.on_tick.append(lambda: note_fills(engine))
        return engine

    def _sent(self, channel: str, reply: Any) -> None:
        """Takes what came of a send; raises `ChannelFull`."""
        if _overload.listener is not None and reply is not None:
            self._note_sent(channel, reply)
        if reply == 0:
            self._operations.sent(channel, reply)

    def _note_sent(self, channel: str, held: int) -> None:
        """Notes how many messages a channel has after a send; 0: it is full."""
        capacity = max(1, self.get_capacity(channel))
        self._fills.note(self, "channel", channel, (held or capacity) / capacity)

    def _note_delivered(self, requests: list[Request], replies: list[Any]) -> None:
        """The same of the processes that a message to a group was for."""
        for (_, command), held in zip(requests, replies, strict=True):
            if isinstance(held, int):
                name = arguments_of(command)[0].decode().removeprefix(self.prefix)
                self._note_sent(name, held)

    def _note_fills(self, engine: LoopEngine) -> None:
        """Notes how full everything is; called by an engine, once a second."""
        if _overload.listener is not None:
            self._fills.note_all(self, "mailbox", self._mailboxes.owners.fills())
            if isinstance(engine, UnconfirmedEngine):
                hosts = map(str, self._hosts)
                fills = dict(zip(hosts, engine.fills(), strict=True))
                self._fills.note_all(self, "unconfirmed", fills)

    # Steps

    def _about(self) -> dict[str, Any]:
        return {**super()._about(), "stats": self.stats()}

    def _joined(self) -> tuple[int, int]:
        """How many memberships there are, and how many subscriptions."""
        raise NotImplementedError

    def _subscribers_up(self) -> dict[str, bool]:
        """Whether the subscriptions of all event loops at a server are up."""
        return {}

    def _host_stats(self) -> dict[str, HostStats]:
        found = {}
        engines = self._loops.all()
        for index, name in enumerate(names_of(self._hosts)):
            shards = [engine.shards[index] for engine in engines]
            found[name] = host_stats(shards, self._blocking.shards[index])
        return found


class SyncObserving:
    """The same for synchronous callers."""

    _layer: Observing
    _run: Callable[..., Any]

    def stats(self) -> Stats:
        """As the layer's own `stats`, which doesn't block either."""
        return self._layer.stats()

    def ping(self) -> list[Ping]:
        """What each server of `hosts` answers, within `command_timeout`."""
        found: list[Ping] = self._run("ping")
        return found
