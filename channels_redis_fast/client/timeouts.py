"""A limit for what is awaited, under one name for all Pythons.

`asyncio.wait_for` before 3.12 may swallow a cancellation: who cancels a receive would
wait for ever. redis-py needs the same package for the same Pythons.
"""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11, 3):
    from asyncio import timeout
else:
    from async_timeout import timeout  # type: ignore[import-not-found,no-redef]

__all__ = ["timeout"]
