"""A channel layer in a process of its own, told what to do over stdin.

    python peer.py LAYER CONFIG [uvloop]

LAYER is the import path of the class, CONFIG its keyword arguments as JSON. Each line
of stdin is a request: {"id": 1, "do": "send", "args": [...], "kwargs": {...}}, where
`do` names a command below or a method of the layer. Each line of stdout is an answer:
{"id": 1, "result": ...} or {"id": 1, "error": [classes, text]}, or what was logged:
{"log": [logger, level, text]}. Requests run at the same time. The answer to request 0,
which nobody makes, is the process id once the layer is built. The process ends with its
stdin. `peers.py` drives it.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import itertools
import json
import logging
import os
import random
import sys
import time
from collections import Counter
from typing import Any

Numbered = list[tuple[str, int]]


def encode(value: object) -> str:
    """One line of JSON, in which bytes may occur."""
    return json.dumps(value, default=_wrap)


def decode(line: str | bytes) -> Any:
    """What `encode` was given."""
    return json.loads(line, object_hook=_unwrap)


def _wrap(value: object) -> object:
    if isinstance(value, bytes):
        return {"__bytes__": base64.b64encode(value).decode()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{value!r} is no JSON")


def _unwrap(value: dict[str, Any]) -> Any:
    if set(value) == {"__bytes__"}:
        return base64.b64decode(value["__bytes__"])
    return value


class Peer:
    """The commands, around one layer."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.tasks: dict[int, asyncio.Task[Any]] = {}

    async def run(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Carry out one request."""
        command = getattr(self, f"do_{name}", None) or getattr(self.layer, name)
        result = command(*args, **kwargs)
        return await result if asyncio.iscoroutine(result) else result

    async def do_receive(self, channel: str, timeout: float | None = None) -> Any:
        """The next message, or TimeoutError."""
        return await asyncio.wait_for(self.layer.receive(channel), timeout)

    async def do_cancel(self, request: int) -> bool:
        """Cancel a request; whether it had not ended yet."""
        task = self.tasks.get(request)
        if task is None:
            return False
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    async def do_burst(
        self,
        target: str,
        count: int,
        *,
        group: bool = False,
        start: int = 0,
        senders: int = 1,
        pause: float = 0.0,
        patient: bool = False,
        sender: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send numbered messages; which were accepted, and how the others failed.

        Several `senders` take turns, each awaits its send. A patient burst repeats
        what meets a full channel.
        """
        numbers = iter(range(start, start + count))
        accepted: list[int] = []
        failed: dict[str, list[int]] = {}
        base = {"type": "burst", "from": sender or str(os.getpid()), **(extra or {})}
        send = self.layer.group_send if group else self.layer.send

        async def work() -> None:
            for number in numbers:
                while True:
                    try:
                        await send(target, {**base, "n": number})
                    except Exception as error:
                        kind = type(error).__name__
                        if patient and kind == "ChannelFull":
                            await asyncio.sleep(0.001)
                            continue
                        failed.setdefault(kind, []).append(number)
                    else:
                        accepted.append(number)
                    break
                if pause:
                    await asyncio.sleep(pause)

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(senders)))
        seconds = time.perf_counter() - began
        return {"accepted": sorted(accepted), "failed": failed, "seconds": seconds}

    async def do_collect(
        self,
        channels: str | list[str],
        count: int | None = None,
        *,
        timeout: float = 10.0,
        idle: float | None = None,
        readers: int = 1,
        impatience: float | None = None,
    ) -> dict[str, Any]:
        """Receive numbered messages until there are `count`, or time is over.

        Ends also after `idle` seconds without one. With `impatience`, each receive is
        cancelled after a random time up to it, and begun again. Per channel the list of
        (sender, number) in order of arrival, and how often a receive was cancelled.
        """
        names = [channels] if isinstance(channels, str) else channels
        received: dict[str, Numbered] = {name: [] for name in names}
        errors: Counter[str] = Counter()
        last = time.monotonic()
        enough = asyncio.Event()
        cancelled = 0

        async def read(name: str) -> None:
            nonlocal cancelled, last
            while True:
                task = asyncio.ensure_future(self.layer.receive(name))
                try:
                    limit = impatience and random.uniform(0, impatience)
                    await asyncio.wait({task}, timeout=limit)
                finally:
                    if not task.done():
                        task.cancel()
                        await asyncio.wait({task})
                if task.cancelled():
                    cancelled += 1
                elif error := task.exception():
                    errors[f"{type(error).__name__}: {error}"] += 1
                    await asyncio.sleep(0.01)
                else:
                    message = task.result()
                    received[name].append((message.get("from", ""), message["n"]))
                    last = time.monotonic()
                    if sum(map(len, received.values())) == count:
                        enough.set()

        began = time.monotonic()
        tasks = [asyncio.ensure_future(read(name)) for name in names * readers]
        try:
            while not enough.is_set():
                ends = [began + timeout] + ([last + idle] if idle else [])
                remaining = min(ends) - time.monotonic()
                if remaining <= 0:
                    break
                try:
                    await asyncio.wait_for(enough.wait(), remaining)
                except asyncio.TimeoutError:
                    continue
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        result: Any = received if isinstance(channels, list) else received[channels]
        return {
            "received": result,
            "errors": dict(errors),
            "cancelled": cancelled,
            "seconds": time.monotonic() - began,
        }

    def do_stand_still(self, seconds: float) -> None:
        """Blocks the event loop."""
        time.sleep(seconds)

    async def do_buffered(self) -> list[str]:
        """The channels that this process holds messages for."""
        return [name for name, found in self.layer.receive_buffer.items() if found]

    async def do_clock(self, now: float, step: float) -> None:
        """Makes `time.time` start at `now` and go on by `step` with each call."""
        time.time = itertools.count(now, step).__next__

    async def do_environment(self) -> list[Any]:
        """The event loop's package, -O, whether it debugs; the layer's package."""
        loop = asyncio.get_running_loop()
        package = sys.modules[type(self.layer).__module__.partition(".")[0]]
        kind = type(loop).__module__.partition(".")[0]
        return [kind, sys.flags.optimize, loop.get_debug(), package.__file__]

    async def do_close(self) -> None:
        """Close what the layer opened, by whichever way this layer has."""
        await (getattr(self.layer, "close_pools", None) or self.layer.flush)()


class Forward(logging.Handler):
    """Sends what is logged to the other side."""

    def emit(self, record: logging.LogRecord) -> None:
        say({"log": [record.name, record.levelname, self.format(record)]})


def say(answer: dict[str, Any]) -> None:
    """Write one line."""
    sys.stdout.write(encode(answer) + "\n")
    sys.stdout.flush()


def describe(error: Exception) -> list[Any]:
    """The names of its classes, and its text."""
    return [[cls.__name__ for cls in type(error).__mro__[:-2]], str(error)]


async def serve(layer: Any) -> None:
    """Answer requests until stdin ends."""
    loop = asyncio.get_running_loop()
    peer = Peer(layer)
    reader = asyncio.StreamReader(limit=1 << 28)
    pipe, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )

    async def handle(request: dict[str, Any]) -> None:
        try:
            result = await peer.run(
                request["do"], request.get("args", []), request.get("kwargs", {})
            )
            answer = {"id": request["id"], "result": result}
            say(answer)
        except asyncio.CancelledError:
            say({"id": request["id"], "error": ["CancelledError", ""]})
            raise
        except Exception as error:
            say({"id": request["id"], "error": describe(error)})

    say({"id": 0, "result": os.getpid()})
    while line := await reader.readline():
        request = decode(line)
        task = asyncio.ensure_future(handle(request))
        peer.tasks[request["id"]] = task
        task.add_done_callback(lambda _, number=request["id"]: peer.tasks.pop(number))
    pipe.close()
    tasks = list(peer.tasks.values())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait_for(peer.do_close(), 5)


def main(path: str, config: str, loop: str = "asyncio") -> None:
    """Build the layer and serve."""
    logging.basicConfig(level=logging.INFO, handlers=[Forward()])
    module, _, name = path.rpartition(".")
    try:
        layer = getattr(importlib.import_module(module), name)(**decode(config))
    except Exception as error:
        say({"id": 0, "error": describe(error)})
        raise SystemExit(1) from None
    if loop == "uvloop":
        import uvloop

        uvloop.run(serve(layer))
    else:
        asyncio.run(serve(layer))


if __name__ == "__main__":
    main(*sys.argv[1:])
