"""Blocking pops from a key, in the calling thread."""

from __future__ import annotations

import contextlib
import math
import selectors
import time
from collections.abc import Callable
from typing import Any

from redis import exceptions as errors

from ..client.blocking_batch import Batch
from ..client.blocking_pool import BlockingConnection, BlockingPool
from ..client.blocking_shard import BlockingShard
from ..commands.command import Command
from ..commands.errors import Kind, is_ask, kind_of, may_pass
from ..commands.operations import Operations
from ..commands.scripts import number
from ..mailboxes.dropped import DropCounters
from ..polling.pops import Entry, popped

_PAUSE, _PAUSE_REFUSED = 0.05, 0.5  # seconds, between attempts of all kinds
_LOOK_UP_AFTER = 0.25  # seconds, between looks at what is due, or who was served


class Wait:
    """A blocking pop on one shard."""

    def __init__(self, shard: BlockingShard, key: bytes) -> None:
        self.shard = shard
        self.not_before = 0.0
        self.silent_at = 0.0  # when the server should have answered
        self._key = key
        self._ask: errors.AskError | None = None
        self._pool: BlockingPool | None = None
        self._pipe: BlockingConnection | None = None
        self._to_come = 0  # replies
        self._asks_id = False
        self._was_refused = False

    @property
    def pipe(self) -> BlockingConnection | None:
        """The connection that waits."""
        return self._pipe

    def begin(self, seconds: int, patience: float) -> None:
        """Waits at the server for so long; it may be `patience` late."""
        now = time.monotonic()
        until = now + patience
        if self._ask is not None:
            self._pool = self.shard.pool_at(self._ask)
        else:
            self._pool = self.shard.pool_of(self._key, until)
        self._pipe = self._pool.acquire(until)
        self._asks_id = self._pipe.client_id is None
        commands: list[Command] = [(b"CLIENT", b"ID")] if self._asks_id else []
        commands += [(b"ASKING",)] if self._ask is not None else []
        commands.append((b"BZPOPMIN", self._key, number(seconds)))
        self._ask, self._to_come = None, len(commands)
        self.silent_at = now + seconds + patience
        self._pipe.write(commands, until)

    def poll(self) -> tuple[bool, Any]:
        """Whether the wait is over, and with what; raises redis-py's errors."""
        if self._pipe is None or self._pool is None:
            return False, None
        while True:
            is_there, reply = self._pipe.try_read()
            if not is_there:
                return False, None
            self._to_come -= 1
            if self._asks_id:  # -1: not allowed
                if not may_pass(reply):
                    self._pipe.client_id = reply if isinstance(reply, int) else -1
                self._asks_id = False
            elif not self._to_come:
                self._pool.release(self._pipe)
                self._pipe = None
                self._was_refused &= isinstance(reply, Exception)
                return True, reply

    def failed(self, error: Exception) -> float:
        """Gives up for the time being; for how long (seconds). Raises what stays."""
        self.close()
        self.shard.learn(self._key, error)
        if is_ask(error):
            self._ask = error
        if kind_of(error) is Kind.FINAL:
            raise error
        pause = _PAUSE_REFUSED if self._was_refused else _PAUSE
        self._was_refused = may_pass(error)
        self.not_before = time.monotonic() + pause
        return pause

    def end(self) -> Any:
        """Ends the wait; what it had popped, or None."""
        over, reply = self.poll()
        while self._pipe is not None and self._pool is not None:
            if time.monotonic() > self.silent_at:
                raise errors.TimeoutError(f"no answer from {self._pool.host} in time")
            client_id = self._pipe.client_id
            if client_id not in (None, -1) and not self._asks_id:
                unblock = (b"CLIENT", b"UNBLOCK", number(client_id))
                reply = self._pool.ask(unblock, time.monotonic() + _PAUSE * 10)
                if isinstance(reply, errors.ResponseError) and not may_pass(reply):
                    self._pipe.client_id = -1
            _select([self], _PAUSE)
            over, reply = self.poll()
        return reply if over and isinstance(reply, list) else None

    def close(self) -> None:
        """Gives up the connection."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


class Popper:
    """Pops from a key on some shards, whichever has a message first.

    An outage is ridden out for `command_timeout` seconds. `tidy` is called all the
    while. What was popped and isn't wanted goes back to its place in Redis.
    """

    def __init__(
        self,
        shards: list[BlockingShard],
        key: bytes,
        operations: Operations,
        counters: DropCounters,
        command_timeout: float,
        tidy: Callable[[], None],
    ) -> None:
        self.key = key
        self.tidy = tidy
        self._operations = operations
        self._counters = counters
        self._waits = [Wait(shard, key) for shard in shards]
        self._command_timeout = command_timeout
        # A server that is silent is found out within the timeout, wait and all.
        self._patience = command_timeout / 2
        longest = min(shard.longest_wait for shard in shards)
        self._longest = max(1, int(min(longest, command_timeout / 2)))
        self._trouble_since: float | None = None

    def pop(
        self, deadline: float | None, is_served: Callable[[], bool] = lambda: False
    ) -> Entry | None:
        """A member and its score; None at the deadline. Raises redis-py's errors.

        None also when `is_served`: the caller got what it wants from somebody else.
        """
        found: list[tuple[Wait, Entry]] = []
        try:
            while not found and not is_served():
                self.tidy()
                self._begin(deadline)
                now = time.monotonic()
                _select(self._waits, self._nap(now, deadline))
                for wait in self._waits:
                    entry = self._poll(wait)
                    if entry is not None:
                        found.append((wait, entry))
                if deadline is not None and time.monotonic() >= deadline:
                    break
        except BaseException:
            self._end(found, 0)
            raise
        self._end(found, 1)
        return found[0][1] if found else None

    def end_wait_of(self, client_id: int) -> None:
        """Ends the wait of another who pops from the key."""
        until = time.monotonic() + self._patience
        unblock = (b"CLIENT", b"UNBLOCK", number(client_id))
        with contextlib.suppress(errors.RedisError):  # else it runs out
            self._waits[0].shard.pool_of(self.key, until).ask(unblock, until)

    def _nap(self, now: float, deadline: float | None) -> float:
        """Seconds until there is something to do though no server answers."""
        times = [w.silent_at if w.pipe else w.not_before for w in self._waits]
        return min(*times, now + _LOOK_UP_AFTER, deadline or math.inf) - now

    def _begin(self, deadline: float | None) -> None:
        now = time.monotonic()
        left = math.inf if deadline is None else deadline - now
        # Whole seconds: Redis 5 knows no others. What is too long is ended.
        seconds = max(1, min(self._longest, math.ceil(min(left, self._longest))))
        for wait in self._waits:
            if wait.pipe is None and wait.not_before <= now:
                try:
                    wait.begin(seconds, self._patience)
                except errors.RedisError as error:
                    self._failed(wait, error)

    def _poll(self, wait: Wait) -> Entry | None:
        try:
            is_over, reply = wait.poll()
            if not is_over and wait.pipe and time.monotonic() >= wait.silent_at:
                reply = errors.TimeoutError(f"no answer from {wait.shard.host} in time")
                self._trouble_since = -math.inf
        except errors.RedisError as error:
            reply = error
        if isinstance(reply, Exception):
            self._failed(wait, reply)
            return None
        if is_over:
            self._trouble_since = None
        return popped(reply)[0] if reply else None

    def _failed(self, wait: Wait, error: Exception) -> None:
        now = time.monotonic()
        pause = wait.failed(error)
        if self._trouble_since is None:
            self._trouble_since = now
        if now + pause - self._trouble_since >= self._command_timeout:
            raise error

    def _end(self, found: list[tuple[Wait, Entry]], wanted: int) -> None:
        """Ends all waits. What the caller doesn't want goes back to its place.

        Also when an exception comes meanwhile, of a signal handler for instance: then
        all goes back.
        """
        try:
            self._end_waits(found)
            self._put_all_back(found, wanted)
        except BaseException:
            try:
                self._end_waits(found)
            finally:
                self._put_all_back(found, 0)
            raise
        finally:
            for wait in self._waits:
                wait.close()

    def _end_waits(self, found: list[tuple[Wait, Entry]]) -> None:
        for wait in self._waits:
            with contextlib.suppress(errors.RedisError):
                # Else what it may have popped is lost with its connection.
                if reply := wait.end():
                    found.append((wait, popped(reply)[0]))

    def _put_all_back(self, found: list[tuple[Wait, Entry]], wanted: int) -> None:
        while len(found) > wanted:
            wait, entry = found.pop()
            self._put_back(wait.shard, entry)

    def _put_back(self, shard: BlockingShard, entry: Entry) -> None:
        until = time.monotonic() + self._command_timeout
        command = self._operations.put_back(self.key, [entry])
        # Not repeated when the connection breaks: who got it meanwhile has it.
        batch = Batch([shard], [(0, command)], until)
        batch.fly()
        (reply,) = batch.complete()
        if isinstance(reply, Exception):
            self._counters.count("lost while being put back", reply)


def _select(waits: list[Wait], seconds: float) -> None:
    """Returns when a server may have answered, or the time is over."""
    with selectors.DefaultSelector() as selector:
        for wait in waits:
            if wait.pipe is not None:
                selector.register(wait.pipe, selectors.EVENT_READ)
        selector.select(max(0.0, seconds))
