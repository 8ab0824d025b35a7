"""A command for Redis."""

from __future__ import annotations

from typing import Any

# Its words; a script call, as `Script.on` makes it, has the key it touches fourth.
Command = tuple[Any, ...]
