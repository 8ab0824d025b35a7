"""A process that does its part in measurements, told what over a pipe.

    worker.py DESCRIPTOR [uvloop]

Each measurement begins with the arguments of `Station.of`, which gets an event loop of
its own. Then come requests, (method, arguments), each answered with (True, result) or
(False, traceback), until None ends the measurement. `arena.Worker` is the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from station import Station


async def measurement(pipe: Connection, *args: Any) -> None:
    """Lets a station of its own answer requests."""
    station = Station.of(*args)
    try:
        await serve(pipe, station)
    finally:
        await station.close()


async def serve(pipe: Connection, station: Any) -> None:
    """Answers requests until there are no more; each waits for the one before."""
    requests: asyncio.Queue[Any] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            requests.put_nowait(pipe.recv())
        except EOFError:
            loop.remove_reader(pipe.fileno())
            requests.put_nowait(None)

    loop.add_reader(pipe.fileno(), read)
    try:
        while (request := await requests.get()) is not None:
            name, arguments = request
            pipe.send(await answer(getattr(station, name), arguments))
    finally:
        loop.remove_reader(pipe.fileno())


async def answer(method: Any, arguments: Any) -> tuple[bool, Any]:
    """The result of a method, or what it raised."""
    try:
        return True, await method(*arguments)
    except Exception:
        return False, traceback.format_exc()


def main(descriptor: str, loop: str = "asyncio") -> None:
    """Takes part until the pipe is closed."""
    run = asyncio.run
    if loop == "uvloop":
        import uvloop

        run = uvloop.run
    pipe = Connection(int(descriptor))
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            arguments = pipe.recv()
            try:
                run(measurement(pipe, *arguments))
                pipe.send((True, None))
            except Exception:
                pipe.send((False, traceback.format_exc()))
            gc.collect()


if __name__ == "__main__":
    main(*sys.argv[1:])
