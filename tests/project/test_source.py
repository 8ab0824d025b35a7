"""The linters, the type checker and the pages, as `make lint` runs them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COMPILED = sorted(path.stem for path in (ROOT / "src").glob("*.pyx"))


def succeeds(*command: str) -> None:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint() -> None:
    succeeds("make", "lint")


@pytest.mark.parametrize("module", COMPILED)
def test_stubs_say_what_is_compiled(module: str) -> None:
    succeeds(
        sys.executable, "-m", "mypy.stubtest", f"channels_redis_fast.wire.{module}"
    )
