"""A layer that loses, doubles and delays chat messages, for the check to notice."""

from __future__ import annotations

import os
from typing import Any

from channels_redis_fast.core import RedisChannelLayer

KIND = os.environ.get("FAULT", "")
EVERY = 100


class FaultyLayer(RedisChannelLayer):
    """Does what FAULT says to one in 100 messages that are said in a room."""

    said = 0

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        if message["type"] == "member.said":
            self.said += 1
            if self.said % EVERY == 0:
                if KIND == "lose":
                    return
                if KIND == "double":
                    await super().group_send(group, message)
                if KIND == "raise":
                    raise RuntimeError("this layer is faulty")
        await super().group_send(group, message)
