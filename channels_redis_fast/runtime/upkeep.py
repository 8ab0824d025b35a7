"""When work that nobody asked for is tried again, after it failed."""

from __future__ import annotations

import time

# Seconds.
_RETRY_AFTER = 1.0


def retry_at(began: float) -> float:
    """When to try again what began then, and failed now (`time.monotonic()`).

    Not before ten times what the failure took: callers who block may wait meanwhile.
    """
    now = time.monotonic()
    return now + max(_RETRY_AFTER, 10 * (now - began))
