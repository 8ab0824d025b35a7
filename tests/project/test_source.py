"""The linters and type checkers, each as a test."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig

import pytest

from support.paths import ROOT

pytestmark = pytest.mark.slow

COMPILED = sorted(path.stem for path in (ROOT / "src").glob("*.pyx"))
CYTHON = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "src").glob("*.p[yx]*"))
CHECKS = {
    "ruff check": ["ruff", "check", "--no-cache", "."],
    "ruff format": ["ruff", "format", "--no-cache", "--check", "."],
    "cython-lint": ["cython_lint.cython_lint", *CYTHON],
    "mypy": ["mypy", "--strict"],
    **{
        f"stubtest {name}": ["mypy.stubtest", f"channels_redis_fast.{name}"]
        for name in COMPILED
    },
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", CHECKS.values(), ids=CHECKS)
def test_source(command: list[str]) -> None:
    assert COMPILED
    # cython-lint starts pycodestyle by its name.
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
