"""Where what tests read lies."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PROMISES = DOCS / "failures.md"
