"""One server process: uvicorn on a socket that the launcher opened."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys

import uvicorn

STARTUP_FAILURE = 3
GRACE = 3  # seconds for open WebSockets to close


class Server(uvicorn.Server):
    """A uvicorn that says when it is ready and stops when stdin ends."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to serve, then tells the launcher."""
        await super().startup(sockets=sockets)
        if not self.started:  # older uvicorns only say so, and would exit with 0
            sys.exit(STARTUP_FAILURE)
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._stop)
        print(json.dumps({"pid": os.getpid()}), flush=True)

    def _stop(self) -> None:
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        self.should_exit = True


def main() -> None:
    """Serves the demo's site on the listening socket with the given number."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    os.environ["DJANGO_SETTINGS_MODULE"] = "channels_redis_fast.demo.settings"
    config = uvicorn.Config(
        "channels_redis_fast.demo.asgi:application",
        lifespan="on",
        log_config=None,  # Django's LOGGING has it
        access_log=False,
        timeout_graceful_shutdown=GRACE,
        # On loopback, compressing costs time and saves none.
        ws_per_message_deflate=False,
    )
    Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
