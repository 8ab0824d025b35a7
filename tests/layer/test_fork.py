"""Forks in the middle of everything: the child begins anew, the parent goes on."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import traceback
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from channels_redis_fast.client import shard
from channels_redis_fast.core import RedisChannelLayer
from support.certificates import Certificates
from support.forking import needs_fork
from support.layers import end, persist, soon
from support.loops import Runner
from support.polling import eventually
from support.proxy import Proxy
from support.servers import Server

pytestmark = needs_fork


class Child:
    """A forked process that runs a function; what it raised comes back."""

    def __init__(self, function: Callable[[], None], *, collect: bool = False) -> None:
        read, write = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns when there are other threads: the child uses none.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                if collect:
                    gc.unfreeze()
                    gc.collect()
                function()
                status = 0
            except BaseException:
                os.write(write, traceback.format_exc().encode()[-4000:])
            finally:
                os._exit(status)
        os.close(write)
        self._read = read

    async def ended(self) -> None:
        """Waits for its end; fails if it failed."""

        def status() -> tuple[int] | None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return (status,) if pid else None

        try:
            (code,) = await eventually(status, "the child to end", timeout=20)
            assert code == 0, os.read(self._read, 10_000).decode()
        finally:
            os.close(self._read)


def in_child(layer: RedisChannelLayer, to: str, number: int) -> None:
    """Uses the layer that was inherited, in an event loop of its own."""
    assert not to.partition("!")[0].endswith(layer.client_prefix)

    async def main() -> None:
        name = await layer.new_channel()
        assert layer.client_prefix in name
        await layer.group_add("children", name)
        await layer.send(name, {"n": 1})
        await layer.group_send("children", {"n": 2})
        numbers = [(await soon(layer, name))["n"] for _ in range(2)]
        assert numbers == [1, 2]
        await layer.group_discard("children", name)
        await persist(layer, to, {"from": number})

    asyncio.run(main())
    async_to_sync(layer.send)("worker", {"from": number})


class Parent:
    """Sends and receives without a pause."""

    def __init__(self, layer: RedisChannelLayer) -> None:
        self.layer = layer
        self.got: list[int] = []
        self.children: list[int] = []

    async def __aenter__(self) -> Parent:
        self.name = await self.layer.new_channel()
        self.to = await self.layer.new_channel()
        await self.layer.group_add("parents", self.name)
        self._tasks = [asyncio.ensure_future(work()) for work in self._works()]
        await self.answers()
        return self

    async def __aexit__(self, *_: object) -> None:
        failed = [task for task in self._tasks if task.done()]
        await end(*self._tasks)
        assert not failed, [task.exception() for task in failed]

    def _works(self) -> list[Callable[[], Awaitable[None]]]:
        return [self._send, self._receive, self._hear]

    async def _send(self) -> None:
        number = 0
        while True:
            await self.layer.group_send("parents", {"n": number})
            number += 1

    async def _receive(self) -> None:
        while True:
            self.got.append((await self.layer.receive(self.name))["n"])

    async def _hear(self) -> None:
        while True:
            self.children.append((await self.layer.receive(self.to))["from"])

    async def answers(self) -> None:
        """Waits until all that goes on has gone on."""
        wanted = len(self.got) + 10
        await eventually(lambda: len(self.got) > wanted, "messages", timeout=1)


def scenario(
    hosts: list[Any],
    new_loop: Callable[[], Any],
    fork: Callable[..., Awaitable[None]],
    forks: int = 24,
) -> None:
    """Forks again and again in a loop that is busy."""
    layer = RedisChannelLayer(hosts=hosts, capacity=1000)

    async def main() -> None:
        async with Parent(layer) as parent:
            for number in range(forks):
                await fork(parent, number)
                await parent.answers()
            await eventually(lambda: len(parent.children) == forks, "the messages")
            assert parent.children == list(range(forks))
            assert parent.got == sorted(set(parent.got))
            for _ in range(forks):
                await soon(layer, "worker")
        assert layer.counters == {}

    with Runner(loop_factory=new_loop) as runner:
        runner.run(main())


async def fork_here(parent: Parent, number: int) -> None:
    """In the loop's thread, between two steps of what goes on."""
    work = lambda: in_child(parent.layer, parent.to, number)  # noqa: E731
    child = Child(work, collect=number % 2 == 1)
    await parent.answers()
    await child.ended()


async def fork_in_a_thread(parent: Parent, number: int) -> None:
    """In another thread, while the loop's is anywhere."""
    work = lambda: in_child(parent.layer, parent.to, number)  # noqa: E731
    child = await asyncio.to_thread(Child, work, collect=number % 2 == 1)
    await parent.answers()
    await child.ended()


async def fork_by_multiprocessing(parent: Parent, number: int) -> None:
    """As `concurrent.futures` and Celery's billiard do it."""
    context = multiprocessing.get_context("fork")
    arguments = (parent.layer, parent.to, number)
    process = context.Process(target=in_child, args=arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    await parent.answers()
    await eventually(lambda: not process.is_alive(), "the child to end", timeout=20)
    assert process.exitcode == 0
    process.close()


FORKING = [fork_here, fork_in_a_thread, fork_by_multiprocessing]


@pytest.mark.parametrize("fork", FORKING)
@pytest.mark.slow
@pytest.mark.serial
def test_forks_under_load(
    valkey: Server, new_loop: Callable[[], Any], fork: Callable[..., Awaitable[None]]
) -> None:
    scenario([valkey.url], new_loop, fork)


@pytest.mark.slow
@pytest.mark.serial
def test_forks_under_load_over_tls(
    tls_server: Server, certificates: Certificates, new_loop: Callable[[], Any]
) -> None:
    host = {"address": tls_server.url, **certificates.client_arguments()}
    host.pop("ssl", None)
    scenario([host], new_loop, fork_here, forks=8)


def test_a_child_that_stays(valkey: Server) -> None:
    """The parent's connections end when it closes them: the child holds none."""
    layer = RedisChannelLayer(hosts=[valkey.url], capacity=1000)
    client = valkey.client()

    async def main() -> None:
        async with Parent(layer) as parent:
            ours = {one["id"] for one in client.client_list()}
            ours.remove(str(client.client_id()))
            assert len(ours) == 2
            child = Child(lambda: asyncio.run(stay()))
            await parent.answers()
        await layer.close_pools()
        await eventually(
            lambda: ours.isdisjoint(one["id"] for one in client.client_list()),
            "the server to see them go",
        )
        await layer.send("child", {"n": 1})
        await child.ended()

    async def stay() -> None:
        assert await soon(layer, "child", 20) == {"n": 1}

    asyncio.run(main())


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(steps, marks=() if steps % 12 == 3 else pytest.mark.slow)
        for steps in range(0, 30, 3)
    ],
)
def test_a_fork_while_connecting(valkey: Server, steps: int) -> None:
    layer = RedisChannelLayer(hosts=[valkey.url])

    async def main() -> None:
        name = await layer.new_channel()
        waiting = asyncio.create_task(soon(layer, name))
        for _ in range(steps):
            await asyncio.sleep(0)
        child = Child(lambda: in_child(layer, "worker", 1), collect=True)
        await layer.send(name, {"n": 1})
        assert await waiting == {"n": 1}
        await child.ended()

    asyncio.run(main())


@pytest.mark.parametrize("when", ["connecting", "greeting"])
def test_a_child_of_a_connection_to_be(
    valkey: Server,
    start_proxy: Callable[..., Proxy],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    """It ends with the parent, though nobody used it yet when the child was made."""
    proxy = start_proxy(valkey)
    layer = RedisChannelLayer(hosts=[f"{proxy.url}/1"])
    read, write = os.pipe()

    def stay() -> None:
        os.close(write)
        os.read(read, 1)  # until the parent closes it

    async def main() -> None:
        reached, gate = asyncio.Event(), asyncio.Event()

        async def restore(*_: Any) -> None:
            reached.set()
            await gate.wait()

        if when == "greeting":
            monkeypatch.setattr(shard, "run_steps", restore)
        else:
            proxy.replies.hold()
        sending = asyncio.create_task(layer.send("worker", {"n": 1}))
        await eventually(
            lambda: (
                reached.is_set() or (when == "connecting" and proxy.requests.passed)
            ),
            "the connection",
        )
        child = Child(stay)
        gate.set()
        proxy.replies.release()
        await sending
        assert await soon(layer, "worker") == {"n": 1}
        await layer.close_pools()
        try:
            await eventually(lambda: not proxy.connections, "the end of them all")
        finally:
            os.close(write)
            await child.ended()

    asyncio.run(main())
    os.close(read)


def test_groups_are_not_inherited(valkey: Server) -> None:
    """The child heals and ends what is its own, not what the parent joined."""
    layer = RedisChannelLayer(hosts=[valkey.url], expiry=0.1)

    async def main() -> None:
        name = await layer.new_channel()
        await layer.group_add("room", name)
        child = Child(lambda: check(name), collect=True)
        await child.ended()
        await layer.group_send("room", {"n": 1})
        assert await soon(layer, name) == {"n": 1}

    def check(name: str) -> None:
        assert len(layer._memberships) == len(layer._mailboxes) == 0
        with pytest.raises(TypeError):
            asyncio.run(layer.receive(name))

    asyncio.run(main())


async def test_a_fork_while_redis_is_asked_for_its_clock(
    valkey: Server, start_proxy: Callable[..., Proxy]
) -> None:
    """The child has none of the parent's callers: its own needn't ask again each."""
    proxy = start_proxy(valkey)
    layer = RedisChannelLayer(hosts=[proxy.url], symmetric_encryption_keys=["a key"])
    await layer.group_send("room", {})  # it connects, and asks for no clock
    clock: Any = layer._clock
    proxy.replies.hold()
    sending = asyncio.create_task(layer.send("worker", {"n": 1}))
    await eventually(lambda: clock._queues, "the question")

    async def send() -> None:
        await layer.send("worker", {"n": 2})
        assert clock.is_settled
        await layer.close_pools()

    child = Child(lambda: asyncio.run(send()), collect=True)
    proxy.replies.release()
    await child.ended()
    await sending
    assert clock.is_settled
    await layer.close_pools()
