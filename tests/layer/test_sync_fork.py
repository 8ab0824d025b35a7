"""Forks while threads block in calls: no socket is shared, nobody hangs."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from support.certificates import Certificates
from support.forking import in_child, needs_fork
from support.polling import until
from support.servers import Server
from support.syncing import KINDS, blocking, signals

pytestmark = needs_fork


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Busy:
    """Threads of the parent that send and receive without a pause."""

    def __init__(self, layer: Any) -> None:
        self.sync = layer.sync
        self.got: list[int] = []
        self.failed: list[BaseException] = []
        self._stop = threading.Event()

    @contextmanager
    def __call__(self) -> Iterator[Busy]:
        works = [self._send, self._receive, self._publish]
        threads = [threading.Thread(target=self._guard, args=[w]) for w in works]
        for thread in threads:
            thread.start()
        try:
            self.answers()
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        assert not self.failed

    def answers(self) -> None:
        """Waits until it goes on."""
        wanted = len(self.got) + 5
        until(lambda: len(self.got) > wanted or self.failed, "messages", timeout=1)

    def _guard(self, work: Callable[[int], None]) -> None:
        try:
            number = 0
            while not self._stop.is_set():
                work(number)
                number += 1
        except BaseException as error:
            self.failed.append(error)

    def _send(self, number: int) -> None:
        if number - len(self.got) < 50:
            self.sync.send("parent", {"n": number})
        else:
            self._stop.wait(0.001)
            self._send_later(number)

    def _send_later(self, number: int) -> None:
        until(lambda: number - len(self.got) < 50 or self._stop.is_set(), "a reader")
        self.sync.send("parent", {"n": number})

    def _receive(self, number: int) -> None:
        try:
            self.got.append(self.sync.receive("parent", 0.5)["n"])
        except TimeoutError:
            if not self._stop.is_set():
                raise

    def _publish(self, number: int) -> None:
        self.sync.group_send("room", {"n": number})


def child(layer: Any, number: int) -> Callable[[], bytes]:
    """What a child does with the layer that it inherited."""

    def work() -> bytes:
        try:
            if number % 2:
                gc.unfreeze()
                gc.collect()
            layer.sync.send("children", {"from": number})
            if number % 5 == 0:
                async_to_sync(layer.group_send)("room", {"from": number})
            layer.sync.send(f"own{number}", {"n": number})
            found = layer.sync.receive(f"own{number}", 5)
            return b"good" if found == {"n": number} else repr(found).encode()
        except BaseException as error:
            return repr(error).encode()

    return work


def scenario(layer: Any, forks: int) -> None:
    with Busy(layer)() as busy:
        for number in range(forks):
            assert in_child(child(layer, number)) == b"good"
            busy.answers()
        assert busy.got == list(range(len(busy.got)))
    heard = [layer.sync.receive("children", 5)["from"] for _ in range(forks)]
    assert heard == list(range(forks))


@pytest.mark.slow
@pytest.mark.serial
def test_fifty_forks(kind: str, valkey: Server) -> None:
    with blocking(kind, valkey.url, capacity=1000) as layer:
        scenario(layer, 50)


@pytest.mark.slow
@pytest.mark.serial
def test_forks_over_tls(
    kind: str, tls_front: Server, certificates: Certificates
) -> None:
    arguments = certificates.client_arguments()
    arguments.pop("ssl", None)
    host = {"address": tls_front.url, **arguments}
    with blocking(kind, host, capacity=1000) as layer:
        scenario(layer, 10)


def test_a_child_holds_no_connection_of_its_parent(valkey: Server) -> None:
    client = valkey.client()
    me = str(client.client_id())
    with blocking("core", valkey.url) as layer:
        layer.sync.send("parent", {})
        ours = {one["id"] for one in client.client_list()} - {me}
        assert len(ours) == 1
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.read(read, 1)
            os._exit(0)
        try:
            layer.sync.close()
            until(
                lambda: ours.isdisjoint(one["id"] for one in client.client_list()),
                "the server to see it go",
            )
        finally:
            os.write(write, b"!")
            os.waitpid(pid, 0)
            os.close(read)
            os.close(write)


def test_a_fork_in_the_middle_of_a_call(valkey: Server) -> None:
    """In a signal handler: the frame that has the connection is in the child, too."""
    answers: list[bytes] = []

    with blocking("core", valkey.url) as layer:

        def handle() -> None:
            answers.append(in_child(child(layer, len(answers))))

        with signals(handle, 0.005):
            while len(answers) < 8:
                layer.sync.group_send("room", {"n": len(answers)})
        assert set(answers) == {b"good"}
