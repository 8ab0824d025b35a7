"""Layers for tests of blocking calls, and what they may cost."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from channels_redis_fast.core import RedisChannelLayer
from channels_redis_fast.pubsub import RedisPubSubChannelLayer
from support.servers import Server

KINDS = {"core": RedisChannelLayer, "pubsub": RedisPubSubChannelLayer}


@contextmanager
def blocking(kind: str, *hosts: Any, **options: Any) -> Iterator[Any]:
    """A layer whose blocking connections are closed at the end."""
    layer = KINDS[kind](hosts=list(hosts), **options)
    try:
        yield layer
    finally:
        layer.sync.close()


@contextmanager
def signals(handle: Callable[[], Any], every: float) -> Iterator[None]:
    """Interrupts this thread, the main one, again and again, but no handler."""
    busy, ended = threading.Lock(), threading.Event()
    main = threading.get_ident()

    def handler(*_: object) -> None:
        try:
            handle()
        finally:
            busy.release()

    def interrupt() -> None:
        while not ended.wait(every):
            if busy.acquire(blocking=False):
                signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        busy.acquire(timeout=1)  # the last one was handled
        signal.signal(signal.SIGUSR1, before)


class Interrupted(Exception):
    """As a task queue's soft time limit raises."""


@contextmanager
def interrupting(seconds: float) -> Iterator[None]:
    """A signal handler raises `Interrupted` in this thread, the main one, once."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def in_threads(count: int, work: Callable[[int], Any], calls: int) -> list[Any]:
    """The results of so many calls from so many threads."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(calls)))


def accepted(server: Server) -> int:
    """How many connections a server has accepted so far."""
    return int(server.client().info("stats")["total_connections_received"])


def resources() -> tuple[int, int]:
    """How many threads and descriptors this process has."""
    gc.collect()  # asgiref's thread of a call ends when its executor is collected
    return threading.active_count(), len(os.listdir("/dev/fd"))


def no_more_than(before: tuple[int, int]) -> bool:
    """Whether this process has no more of either now."""
    return all(now <= then for now, then in zip(resources(), before, strict=True))
