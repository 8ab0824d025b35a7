"""What a function answers in a child of this very process."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_child(function: Callable[[], bytes]) -> bytes:
    """What the function returns in a forked child; less than a pipe holds."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns when there are other threads: the child touches none.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            os.write(write, function())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        found = answer.read()
    os.waitpid(child, 0)
    return found
