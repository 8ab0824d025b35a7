"""In which order a forked child lets go of what is its parent's."""

from __future__ import annotations

import os

import pytest

from channels_redis_fast.client import forks
from channels_redis_fast.client.forks import Step, on_fork
from support.forking import in_child, needs_fork


@needs_fork
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_order_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order in which they were told; and each, though others fail."""
    monkeypatch.setattr(forks, "_callbacks", list(forks._callbacks))
    called: list[str] = []

    def fail() -> None:
        called.append("fails")
        raise ValueError("of a callback")

    on_fork(Step.LOOPS, lambda: called.append("loops"))
    on_fork(Step.POOLS, fail)
    on_fork(Step.SOCKETS, lambda: called.append("sockets"))
    on_fork(Step.POOLS, lambda: called.append("pools"))

    answer = in_child(lambda: " ".join(called).encode())
    assert answer == b"sockets fails pools loops"
    assert called == []


@needs_fork
def test_a_child_lets_go_of_a_socket() -> None:
    """It is nowhere to be read from, and the parent's is as it was."""

    class Pipe:
        def __init__(self) -> None:
            self.end, self.other = os.pipe()

        def fileno(self) -> int:
            return self.end

    pipe = Pipe()
    forks.leave_to_parent(pipe)
    os.write(pipe.other, b"for the parent")

    assert in_child(lambda: b"read " + os.read(pipe.end, 100)) == b"read "
    assert os.read(pipe.end, 100) == b"for the parent"
    os.close(pipe.end)
    os.close(pipe.other)
