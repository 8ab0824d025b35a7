"""Writes messages.json: the bytes that channels_redis 4.3 puts into Redis.

Time and randomness stand still while it runs. Run it again only to add messages: these
bytes are what every process of a fleet agrees on.
"""

import json
import os
import random
from pathlib import Path
from unittest import mock

from channels_redis.serializers import registry

KEYS = ["a golden secret", b"an older one"]
NOW = 1_700_000_000
IV = bytes(range(16))
PREFIX = bytes(range(100, 112))

PROCESS = "specific." + "0123456789abcdef" * 2 + "!"
CHANNELS = {
    "body": None,
    "direct": PROCESS + "fedcba9876543210" * 2,
    "group of one": ["worker"],
    "group": [PROCESS + f"{number:032x}" for number in range(16)],
}
MESSAGES = {
    "empty": {},
    "flat": {
        "type": "chat.message",
        "text": "Grüße, wörld ☃",
        "user": "alice",
        "sent": 1700000000.25,
        "id": 12345,
        "seen": False,
    },
    "nested": {
        "type": "game.state",
        "players": [{"id": 1, "at": [0.5, -1.25]}, {"id": 2, "at": None}],
        "big": [2**64 - 1, -(2**63), 255, 256, 65536, -1, -33, -32769],
    },
    "15 entries": {f"key{number}": number for number in range(15)},
    "16 entries": {f"key{number}": "x" * number for number in range(16)},
    "bytes": {"type": "websocket.receive", "bytes": b"\x00\xff" * 150},
}


def incumbent(format: str, message: object, keys: list | None) -> bytes:
    """What a layer of channels_redis sends."""
    serializer = registry.get_serializer(
        format, symmetric_encryption_keys=keys, random_prefix_length=12, expiry=60
    )
    prefix = int.from_bytes(PREFIX, "big")
    with (
        mock.patch("time.time", return_value=NOW),
        mock.patch.object(os, "urandom", return_value=IV),
        mock.patch.object(random, "getrandbits", return_value=prefix),
    ):
        return serializer.serialize(message)


def row(format, message, channels):
    whole = dict(message)
    if channels is not None:
        whole["__asgi_channel__"] = channels
    found = {"format": format, "message": repr(message), "channels": channels}
    found["plain"] = incumbent(format, whole, None).hex()
    if len(found["plain"]) < 1000:
        token = incumbent(format, whole, KEYS)[len(PREFIX) :]
        found["token"] = token.decode()
    return found


def rows():
    for name, message in MESSAGES.items():
        for kind, channels in CHANNELS.items():
            yield f"{name}, {kind}, msgpack", row("msgpack", message, channels)
            if name != "bytes":
                yield f"{name}, {kind}, json", row("json", message, channels)


if __name__ == "__main__":
    golden = {
        "keys": [key if isinstance(key, str) else key.decode() for key in KEYS],
        "now": NOW,
        "iv": IV.hex(),
        "prefix": PREFIX.hex(),
    }
    text = json.dumps(golden)[:-1] + ', "rows": {\n'
    text += ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows())
    text += "\n}}\n"
    Path(__file__).with_name("messages.json").write_text(text)
