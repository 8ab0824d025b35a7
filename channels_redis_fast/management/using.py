"""What the command does with a layer, whosever it is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

Write = Callable[[str], object]


async def listen(
    layer: Any, group: str, write: Write, tell: Write, count: int | None = None
) -> None:
    """Writes the messages of a group as lines of JSON: so many, or without an end.

    `tell` gets a line when the group is joined.
    """
    channel = await layer.new_channel()
    try:
        await layer.group_add(group, channel)
        tell(f"Listening to {group}; Ctrl-C ends it.")
        for _ in itertools.repeat(None) if count is None else range(count):
            message = await layer.receive(channel)
            write(json.dumps(message, default=repr, ensure_ascii=False))
    finally:
        with suppress(RedisError, TypeError):  # away, or no name of a group
            await layer.group_discard(group, channel)
        if hasattr(layer, "close_pools"):
            await layer.close_pools()


def parse_message(text: str) -> dict[str, Any]:
    """A message out of JSON; raises `ValueError`."""
    try:
        message = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the message is no JSON ({error}): {text}") from None
    if not isinstance(message, dict):
        raise ValueError(
            f'the message must be a JSON object, as {{"type": "x"}}: {text}'
        )
    return message
