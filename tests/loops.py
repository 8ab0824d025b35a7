"""The kinds of event loop, and how to run one to its end."""

from __future__ import annotations

import asyncio
import sys

import uvloop

if sys.version_info >= (3, 11):
    from asyncio import Runner
else:  # comes with pytest-asyncio
    from backports.asyncio.runner import Runner

__all__ = ["LOOPS", "POLICIES", "Runner"]

# libuv keeps a pipe for signals, which is no leak.
uvloop.new_event_loop().close()

# By class: asyncio.new_event_loop would follow TEST_LOOP.
LOOPS = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
POLICIES = (asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy)
