"""Drives channel layers in processes of their own (`peer.py`)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from itertools import count
from pathlib import Path
from typing import Any

from support.peer import decode, encode

CORE = "channels_redis_fast.core.RedisChannelLayer"
PUBSUB = "channels_redis_fast.pubsub.RedisPubSubChannelLayer"
INCUMBENT_CORE = "channels_redis.core.RedisChannelLayer"
INCUMBENT_PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"

SCRIPT = Path(__file__).with_name("peer.py")
LINE = 1 << 28


def incumbent_hosts(*urls: str) -> list[dict[str, Any]]:
    """`hosts` with which channels_redis 4.3 survives redis-py 8 when it is idle."""
    return [{"address": url, "socket_timeout": None} for url in urls]


class PeerError(Exception):
    """What was raised in the other process: its classes' names, its text."""

    def __init__(self, kinds: list[str], text: str) -> None:
        super().__init__(f"{kinds[0]}: {text}")
        self.kind = kinds[0]
        self.kinds = kinds
        self.text = text


class Request(asyncio.Future[Any]):
    """The answer to come."""

    number: int


class Peer:
    """One process with one layer; to be used in `async with`.

    Any method of the layer, and any command of `peer.py`, is a method here:
    `await peer.send(channel, message)`. With `begin` a request is only started.
    """

    def __init__(
        self,
        layer: str,
        config: dict[str, Any],
        *,
        loop: str = os.environ.get("TEST_LOOP", "asyncio"),
        flags: tuple[str, ...] = (),
    ) -> None:
        self._arguments = [*flags, str(SCRIPT), layer, encode(config), loop]
        self._requests: dict[int, Request] = {}
        self._numbers = count(1)
        self._killed = False
        self._logged = asyncio.Event()
        # What the layer logged: (logger, level, text).
        self.logs: deque[tuple[str, str, str]] = deque(maxlen=10_000)

    async def __aenter__(self) -> Peer:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.close(check=kind is None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self.call(name, *args, **kwargs)

        return call

    async def start(self, timeout: float = 20.0) -> None:
        """Start the process and wait until its layer is built."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE,
        )
        ready = self._requests[0] = Request()
        self._reading = asyncio.ensure_future(self._read())
        try:
            self.pid = await asyncio.wait_for(ready, timeout)
        except BaseException:
            await self.close(check=False)
            raise

    def begin(self, name: str, *args: Any, **kwargs: Any) -> Request:
        """Start a request; await the result for its answer."""
        request = Request()
        request.number = next(self._numbers)
        if self._reading.done():
            raise PeerError(["PeerGone"], "the process has ended")
        self._requests[request.number] = request
        line = {"id": request.number, "do": name, "args": args, "kwargs": kwargs}
        assert self._process.stdin is not None
        self._process.stdin.write(encode(line).encode() + b"\n")
        return request

    async def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Carry out a request; cancelled with the caller."""
        request = self.begin(name, *args, **kwargs)
        try:
            return await request
        except asyncio.CancelledError:
            if not self._reading.done():
                self.begin("cancel", request.number).add_done_callback(_ignore)
            raise

    async def cancel(self, request: Request) -> bool:
        """Cancel a request that was begun; whether it had not ended yet."""
        cancelled = bool(await self.call("cancel", request.number))
        await asyncio.wait({request})
        if not request.cancelled():
            request.exception()
        return cancelled

    async def logged(self, text: str, *, timeout: float = 10.0) -> str:
        """Wait until something that contains `text` was logged."""

        async def find() -> str:
            while True:
                self._logged.clear()
                for _, _, line in self.logs:
                    if text in line:
                        return line
                await self._logged.wait()

        return await asyncio.wait_for(find(), timeout)

    async def close(self, *, check: bool = True) -> None:
        """End the process; by force if it doesn't end when it is told to."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.returncode is None and not self._killed:
            self._signal(signal.SIGCONT)
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except asyncio.TimeoutError:
            self.kill()
            self._killed = False
        code = await self._process.wait()
        await asyncio.wait({self._reading})
        self._process._transport.close()  # type: ignore[attr-defined]
        if check and code and not self._killed:
            raise AssertionError(f"the peer ended with status {code}")

    def kill(self) -> None:
        """End the process at once; `async with` still has to reap it."""
        self._killed = True
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """Stop the process (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = decode(line)
            if log := answer.get("log"):
                self.logs.append(tuple(log))
                self._logged.set()
            else:
                self._answer(self._requests.pop(answer["id"]), answer)
        gone = PeerError(["PeerGone"], "the process has ended")
        for request in self._requests.values():
            if not request.done():
                request.set_exception(gone)
        self._requests.clear()

    def _answer(self, request: Request, answer: dict[str, Any]) -> None:
        if request.done():
            return
        if error := answer.get("error"):
            if error[0] == "CancelledError":
                request.cancel()
            else:
                request.set_exception(PeerError(*error))
        else:
            request.set_result(answer["result"])


def _ignore(request: asyncio.Future[Any]) -> None:
    """Take note of the outcome, which nobody waits for."""
    if not request.cancelled():
        request.exception()
