"""Whether the compiled modules are as they are released, and the machine's load."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from types import FrameType

from channels_redis_fast.wire import _names

LOAD = os.getloadavg()  # before anything is measured


def is_compiled() -> bool:
    """And not a twin in Python."""
    return str(_names.__file__).endswith(tuple(EXTENSION_SUFFIXES))


def is_traced() -> bool:
    """Whether a compiled function tells the tracer of Python what it does."""
    seen: list[str] = []

    def trace(frame: FrameType, event: str, argument: object) -> Callable:
        seen.append(frame.f_code.co_name)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        _names.check_group("name")
    finally:
        sys.settrace(before)
    return "check_group" in seen
