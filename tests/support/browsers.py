"""Chromium without a window, for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.remote.webdriver import WebDriver

from support import programs

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def browser(profile: Path, width: int = 1280) -> Iterator[WebDriver]:
    """One, with a profile of its own; skips or fails the test without Chromium.

    It lays pages out as for a screen that is `width` pixels wide.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = programs.needs("chromium")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    screen = {"width": width, "height": 900, "pixelRatio": 1.0}
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": screen})
    service = webdriver.ChromeService(executable_path=_chromedriver())
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


def _chromedriver() -> str:
    """Chromium's driver; without it selenium would go and fetch one."""
    if program := shutil.which("chromedriver"):
        return program
    programs.missing("Debian's package chromium-driver")
