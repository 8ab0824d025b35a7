"""Processes that live no longer than this one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import IO, Any, cast

LOOK_EVERY = 0.05


class Failure(Exception):
    """What keeps the demo from running, in words for the person who started it."""


class Child:
    """One process: its stdin ends when it shall, its first line says it is ready.

    A closed stdin is the only order there is, because it is also what the child
    sees when this process is killed: nothing is ever left behind.
    """

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        environment: Mapping[str, str] | None = None,
        inherit: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            pass_fds=inherit,
            # Ctrl-C in a terminal reaches a whole process group. Only the
            # launcher shall hear it, and stop the servers before their Valkey.
            start_new_session=True,
        )

        # Never None with PIPE.
        self._stdin = cast(IO[bytes], self._process.stdin)
        self._stdout = cast(IO[bytes], self._process.stdout)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def was_killed(self) -> bool:
        """Whether it ended by SIGKILL, as nothing does by itself."""
        return self._process.returncode == -signal.SIGKILL

    async def ready(self, patience: float) -> dict[str, Any]:
        """Waits for the child's first line and returns what it says."""
        try:
            line = await asyncio.wait_for(self._line(), patience)
        except asyncio.TimeoutError:
            message = f"{self.name} did not start within {patience:.0f} seconds"
            raise Failure(message) from None
        if not line:
            raise Failure(f"{self.name} did not start{await self._how_it_ended()}")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise Failure(f"{self.name} did not start: {said['error']}")
        return said

    async def ended(self) -> str:
        """Waits until the process has ended by itself and says how."""
        # asyncio's own watching of children differs between its versions.
        while self._process.poll() is None:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_EVERY)
        return await self._how_it_ended()

    async def stop(self, patience: float) -> bool:
        """Ends the process, by force when it does not within its time."""
        self._stdin.close()
        waits = max(1, round(patience / LOOK_EVERY))
        for _ in range(waits):
            if self._process.poll() is not None:
                break
            await asyncio.sleep(LOOK_EVERY)
        willing = self._process.poll() is not None
        if not willing:
            self._process.kill()
            self._process.wait()
        # A keeper that was killed left what it kept, in the group that it led.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._stdout.close()
        return willing

    async def _line(self) -> bytes:
        stream = self._stdout
        loop = asyncio.get_running_loop()
        some = asyncio.Event()
        loop.add_reader(stream.fileno(), some.set)
        try:
            await some.wait()
        finally:
            loop.remove_reader(stream.fileno())
        # A child writes its line at once, so the rest of it is not waited for.
        return stream.readline()

    async def _how_it_ended(self) -> str:
        for _ in range(20):  # stdout ends a moment before the process does
            if self._process.poll() is not None:
                break
            await asyncio.sleep(LOOK_EVERY)
        code = self._process.returncode
        if code is None:
            return ""
        return f" (signal {-code})" if code < 0 else f" (exit status {code})"


async def run_until_stopped(
    work: Coroutine[Any, Any, int],
    stop: Callable[[], Awaitable[None]],
    stopped: int = 0,
) -> int:
    """Does work until it is done or a signal comes, then stops what it started.

    Returns the exit status: that of the work, or `stopped`.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked.set)
    working = asyncio.create_task(work)
    asking = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({working, asking}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        print("\nstopping ...", flush=True)
        return stopped
    finally:
        # Only here are children stopped, and no signal interrupts it: a second
        # Ctrl-C finds the first one's work being done, within its patience.
        working.cancel()
        asking.cancel()
        await asyncio.wait({working, asking})
        await stop()
        if asked.is_set():
            print("stopped", flush=True)
