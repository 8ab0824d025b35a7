"""A command for Redis."""

from __future__ import annotations

from typing import Any

# Its words; a script call, as `Script.on` makes it, has the key it touches fourth.
# Bytes and str, no numbers: while hiredis turns one into bytes, a signal handler may
# run, and if it raises (a task queue's soft time limit does), the process crashes.
Command = tuple[Any, ...]
