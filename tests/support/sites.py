"""A throwaway Django site in a folder, whose manage.py tests run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from support.paths import ROOT

_SETTINGS = """\
SECRET_KEY = "of tests"
DEBUG = False
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["channels_redis_fast"]
CHANNEL_LAYERS = {layers!r}
CACHES = {caches!r}
"""
_NO_CACHE = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}


class Site:
    """Its settings are written anew by each `set`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def set(self, layers: dict[str, Any], caches: dict[str, Any] | None = None) -> None:
        """Writes the settings."""
        text = _SETTINGS.format(layers=layers, caches=caches or _NO_CACHE)
        (self._folder / "site_settings.py").write_text(text)

    def command(self, *words: str) -> list[str]:
        """What runs a command of the site."""
        return [sys.executable, "-W", "error", "-m", "django", *words]

    @property
    def environment(self) -> dict[str, str]:
        """What its commands find the settings by."""
        paths = f"{self._folder}:{ROOT}"
        return {"DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": paths}

    def manage(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of the site to its end."""
        return subprocess.run(
            self.command(*words),
            env=self.environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
