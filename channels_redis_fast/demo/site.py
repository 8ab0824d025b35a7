"""What the launcher tells each server process, handed over in the environment."""

from __future__ import annotations

import dataclasses
import json
import os
import string

VARIABLE = "CHANNELS_REDIS_FAST_DEMO"
BACKEND = "channels_redis_fast.core.RedisChannelLayer"
LIVENESS = 3.0  # seconds; short, so that a killed process is soon seen to be gone
RESTART_AFTER = 10.0  # seconds; longer than it takes to see that
KEPT, KEPT_FOR = 100, 300  # so many messages of a room, so many seconds


@dataclasses.dataclass(frozen=True)
class Site:
    """One demo as all its processes see it, and which of them this is."""

    backend: str = BACKEND
    hosts: tuple[str, ...] = ("redis://localhost:6379",)
    prefix: str = "demo"
    capacity: int = 100
    names_members: bool = True  # whether the layer does, and knows who lives
    keeps_history: bool = True  # whether the layer can
    plain: bool = False  # consumers without the mixin
    ports: tuple[int, ...] = (8001,)
    index: int = 0

    @classmethod
    def from_environment(cls) -> Site:
        """Reads the launcher's words, or the defaults when there is no launcher."""
        fields = json.loads(os.environ.get(VARIABLE, "{}"))
        for name in ("hosts", "ports"):
            if name in fields:
                fields[name] = tuple(fields[name])
        return cls(**fields)

    @property
    def consumers(self) -> str:
        """How the rooms' consumers handle events."""
        return "as Channels' are (--plain)" if self.plain else "with FastDispatchMixin"

    def environment(self, index: int) -> dict[str, str]:
        """Returns the environment of the server process with this index."""
        fields = dataclasses.asdict(dataclasses.replace(self, index=index))
        return {**os.environ, VARIABLE: json.dumps(fields)}

    @property
    def processes(self) -> list[str]:
        """The names of all its processes."""
        return [process_name(index) for index in range(len(self.ports))]

    @property
    def name(self) -> str:
        """The name of this process: A, B, ..."""
        return process_name(self.index)

    @property
    def port(self) -> int:
        """The port of this process."""
        return self.ports[self.index]


def process_name(index: int) -> str:
    """Returns A for the first process, B for the second, ..."""
    return string.ascii_uppercase[index]
