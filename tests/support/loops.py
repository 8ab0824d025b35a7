"""The kinds of event loop, and how to run one to its end."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import uvloop

if sys.version_info >= (3, 11):
    from asyncio import Runner
else:  # comes with pytest-asyncio
    from backports.asyncio.runner import Runner

__all__ = ["LOOPS", "POLICIES", "LoopThread", "Runner"]

# libuv keeps a pipe for signals, which is no leak.
uvloop.new_event_loop().close()

# By class: asyncio.new_event_loop would follow TEST_LOOP.
LOOPS = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
POLICIES = (asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy)


class LoopThread:
    """A thread with an event loop, in which coroutines can be run."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def begin(self, coroutine: Any) -> Any:
        """Starts a coroutine; a future of `concurrent.futures`."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Any) -> Any:
        """The result of a coroutine."""
        return self.begin(coroutine).result(20)

    def stop(self) -> None:
        """Lets the loop stand still."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()

    def close(self) -> None:
        """Ends the loop without a word to anybody."""
        self.stop()
        self.loop.close()
