"""Figures are those of the compiled modules as they are released, or there are none.

What they were measured with is recorded with them.
"""

from __future__ import annotations

import os
import platform
from typing import Any

import pytest

from built import LOAD, is_compiled, is_traced
from contenders import CONTENDERS
from support import programs


def pytest_configure() -> None:
    if not is_compiled() or is_traced():
        raise pytest.UsageError(
            "benchmarks need modules compiled without CHANNELS_REDIS_FAST_TRACE"
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("layers")
    group.addoption("--rounds", type=int, default=3, help="of each contender")
    group.addoption("--seconds", type=float, default=0.4, help="of a measurement")
    group.addoption("--loop", choices=["asyncio", "uvloop"], default="asyncio")


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    packages = {one.package for one in CONTENDERS.values() if one.package}
    packages |= {"asgiref", "hiredis", "msgpack", "nats-py", "redis", "valkey"}
    servers = {
        "valkey-server": programs.valkey(),
        "nats-server": programs.find("nats-server"),
    }
    machine_info["layers"] = {
        "packages": {name: programs.package_version(name) for name in sorted(packages)},
        "servers": {k: programs.version(v) for k, v in servers.items()},
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": LOAD,
        "loop": config.getoption("loop"),
        "rounds": config.getoption("rounds"),
        "seconds": config.getoption("seconds"),
    }
