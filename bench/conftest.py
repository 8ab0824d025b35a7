"""Figures are those of the compiled modules as they are released, or there are none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from types import FrameType

import pytest

from channels_redis_fast import _names


def is_compiled() -> bool:
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


def pytest_configure() -> None:
    if not is_compiled() or is_traced():
        raise pytest.UsageError(
            "benchmarks need modules compiled without CHANNELS_REDIS_FAST_TRACE"
        )
