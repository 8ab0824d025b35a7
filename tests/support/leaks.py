"""What a test may leave behind: nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from asgiref.sync import SyncToAsync

PATIENCE = 5.0  # seconds; beside others it takes a while
TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class Snapshot:
    """The descriptors, threads and child processes that this process has."""

    files: frozenset[tuple[int, int, int]]
    threads: frozenset[int]
    children: frozenset[int]

    @classmethod
    def take(cls) -> Snapshot:
        """What there is now."""
        return cls(_files(), frozenset(map(id, threading.enumerate())), _children())

    def leaks(self, allowed: Callable[[], set[int]]) -> list[str]:
        """What has come since and stays, save child processes that are allowed."""
        deadline = time.monotonic() + PATIENCE
        collected = False
        while found := self._difference(allowed()):
            if time.monotonic() > deadline:
                break
            if not collected:
                gc.collect()
                collected = True
            time.sleep(0.005)
        return found

    def _difference(self, allowed: set[int]) -> list[str]:
        now = Snapshot.take()
        found = [_describe_file(number) for number, *_ in now.files - self.files]
        found += [
            f"thread {thread.name}"
            for thread in threading.enumerate()
            if id(thread) not in self.threads and thread not in _lasting_threads()
        ]
        for pid in now.children - self.children - allowed:
            found.append(f"process {pid}: {_command(pid)}")
        return found


@dataclass
class LoopWatch:
    """What an event loop complained of, and the tasks that it still has."""

    errors: list[dict[str, Any]] = field(default_factory=list)

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Become the loop's exception handler."""
        self._handler = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: self.errors.append(context))

    async def leaks(self) -> list[str]:
        """The tasks that don't end by themselves, and the complaints."""
        this = asyncio.current_task()
        deadline = time.monotonic() + PATIENCE
        while left := asyncio.all_tasks() - {this}:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.002)
        # Forgotten exceptions are complained of when their task or future goes.
        gc.collect()
        await asyncio.sleep(0)
        asyncio.get_running_loop().set_exception_handler(self._handler)
        found = [f"task {task!r}" for task in left]
        for context in self.errors:
            exception = context.get("exception")
            found.append(f"loop: {context.get('message')}: {exception!r}")
        return found


def _files() -> frozenset[tuple[int, int, int]]:
    found = set()
    for name in os.listdir("/dev/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:
            continue  # the one of listdir itself
        found.add((int(name), status.st_dev, status.st_ino))
    return frozenset(found)


def _children() -> frozenset[int]:
    # psutil reads what the machine has of processes; it is asked where /proc can't be.
    try:
        lists = [path.read_text() for path in TASKS.glob("*/children")]
    except OSError:
        lists = []  # of a thread that ended meanwhile
    if not lists:
        return frozenset(child.pid for child in psutil.Process().children())
    return frozenset(int(pid) for each in lists for pid in each.split())


def _describe_file(number: int) -> str:
    for connection in psutil.Process().net_connections("all"):
        if connection.fd == number:
            ends = f"{connection.laddr} to {connection.raddr}, {connection.status}"
            return f"descriptor {number}: socket {ends}"
    try:
        return f"descriptor {number}: {os.readlink(f'/dev/fd/{number}')}"
    except OSError:
        return f"descriptor {number}"


def _lasting_threads() -> set[threading.Thread]:
    """asgiref's thread for blocking code, which lasts once it was used."""
    return set(SyncToAsync.single_thread_executor._threads)


def _command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return "gone"
