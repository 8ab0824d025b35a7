"""The bytes that channels_redis made of messages, and where it sent them."""

from __future__ import annotations

import json
from typing import Any

from support.paths import TESTS

FOLDER = TESTS / "golden"
MESSAGES: dict[str, Any] = json.loads((FOLDER / "messages.json").read_text())
HASHING: dict[str, list[int]] = json.loads((FOLDER / "hashing.json").read_text())
