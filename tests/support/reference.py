"""What _names, _hashing, _capacity and _fanout do, in readable Python.

The tests' oracle and the benchmarks' baseline. It imports nothing of the package; where
both sides have to refuse something, a base of the package's error is raised here.
"""

from __future__ import annotations

import binascii
import fnmatch
import re
from collections.abc import Iterable

CHANNEL = re.compile(r"[a-zA-Z0-9\-_.]+(![a-zA-Z0-9\-_.]*)?")
GROUP = re.compile(r"[a-zA-Z0-9\-_.]+")
REFUSAL = (
    "{} name must be a valid unicode string with length < 101 containing only ASCII "
    "alphanumerics, hyphens, underscores, or periods."
)


def non_local_name(name: object) -> str:
    if not (isinstance(name, str) and len(name) < 101 and CHANNEL.fullmatch(name)):
        raise TypeError(f"{REFUSAL.format('Channel')}, not {name!r}")
    return split_local(name)


def check_group(name: object) -> None:
    if not (isinstance(name, str) and len(name) < 101 and GROUP.fullmatch(name)):
        raise TypeError(f"{REFUSAL.format('Group')}, not {name!r}")


def split_local(name: str) -> str:
    return name[: name.find("!") + 1] if "!" in name else name


def shard_of(name: str | bytes, ring_size: int) -> int:
    if isinstance(name, str):
        name = name.encode()
    if ring_size < 1:
        raise ValueError(f"ring_size must be at least 1, not {ring_size!r}")
    return int((binascii.crc32(name) & 0xFFF) / (4096 / ring_size))


class CapacityTable:
    def __init__(
        self, default: int, rules: Iterable[tuple[str | re.Pattern[str], int]]
    ) -> None:
        self.default = default
        self.rules = [
            (re.compile(fnmatch.translate(p)) if isinstance(p, str) else p, capacity)
            for p, capacity in rules
        ]

    def lookup(self, channel: str) -> int:
        for pattern, capacity in self.rules:
            if pattern.match(channel):
                return capacity
        return self.default


def bundle(members: list[bytes]) -> dict[bytes, list[bytes]]:
    bundles: dict[bytes, list[bytes]] = {}
    for member in members:
        if member:
            head, mark, _ = member.partition(b"!")
            bundles.setdefault(head + mark, []).append(member)
    return bundles
