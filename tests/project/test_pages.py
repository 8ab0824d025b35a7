"""The built pages fit a telephone and a desk: nothing is cut off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.browsers import browser
from support.paths import DOCS

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]

# What sticks out, but for what scrolls by itself.
STICKS_OUT = """
const limit = arguments[0] + 1;
const scrolls = ".table-wrapper, pre, .highlight";
return [...document.querySelectorAll("article *")].filter(
  each => each.getBoundingClientRect().right > limit && !each.closest(scrolls)
).map(each => each.outerHTML.slice(0, 80));
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    build = ("-m", "sphinx", "-q", "-W", "--keep-going", DOCS, folder)
    subprocess.run([sys.executable, *build], check=True)
    return folder


@pytest.mark.parametrize("width", [400, 1300])
def test_nothing_is_cut_off(built: Path, width: int, tmp_path: Path) -> None:
    pages = sorted(built.rglob("*.html"))
    assert {page.stem for page in DOCS.glob("*.md")} <= {page.stem for page in pages}
    with browser(tmp_path, width) as driver:
        for page in pages:
            driver.get(page.as_uri())
            assert driver.execute_script(STICKS_OUT, width) == [], page.stem
