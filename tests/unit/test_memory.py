"""A million calls of each compiled function leave nothing behind, errors included."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import memory
from support.memory import Case, Growth
from support.paths import ROOT

pytestmark = pytest.mark.slow


# A call that forgets one object forgets one block at least, and no case has less than
# 4,000 calls: what is allowed is for caches and free lists of Python's own. A call that
# forgets what is too large for a block, over 512 bytes, forgets 2 MB in those; arenas
# that come and go are 1 MB.
BLOCKS = 300
REFERENCES = 300
RESIDENT = 2_000_000


def leaks(found: list[Growth]) -> list[Growth]:
    return [
        each
        for each in found
        if each.blocks > BLOCKS
        or each.references > REFERENCES
        or each.resident > RESIDENT
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", memory.MODULES)
def test_memory_is_flat(module: str) -> None:
    done = subprocess.run(
        [sys.executable, Path(memory.__file__), module],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [Growth(**each) for each in json.loads(done.stdout)]
    assert found
    assert leaks(found) == []


def test_no_module_is_left_out() -> None:
    assert set(memory.MODULES) == {p.stem[1:] for p in (ROOT / "src").glob("*.pyx")}


kept: list[object] = []


@pytest.mark.parametrize(
    "forget",
    [lambda given: kept.append(object()), lambda given: kept.append(given), None],
    ids=["object", "reference", "memory"],
)
def test_a_leak_is_found(forget) -> None:
    if forget is None:

        def forget(given: object) -> None:
            kept.append(bytearray(b"x" * 600))

    try:
        assert leaks([memory.growth(Case(forget, (object(),), memory.FEW))])
    finally:
        kept.clear()
    assert not leaks([memory.growth(Case(lambda given: None, (object(),), memory.FEW))])
