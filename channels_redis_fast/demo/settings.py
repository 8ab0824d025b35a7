"""Django settings of the demo: no database, loopback only."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from channels_redis_fast.demo.site import KEPT, KEPT_FOR, LIVENESS, Site

SITE = Site.from_environment()

DEBUG = False
SECRET_KEY = secrets.token_urlsafe(50)  # nothing signed outlives a run
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "channels_redis_fast.demo.urls"
ASGI_APPLICATION = "channels_redis_fast.demo.asgi.application"
INSTALLED_APPS = ["channels"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",  # checks ALLOWED_HOSTS
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
    }
]
USE_TZ = True

CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": SITE.backend,
        "CONFIG": {
            "hosts": list(SITE.hosts),
            "prefix": SITE.prefix,
            "capacity": SITE.capacity,
            **({"liveness": LIVENESS} if SITE.names_members else {}),
            **({"history": {"talk.*": (KEPT, KEPT_FOR)}} if SITE.keeps_history else {}),
        },
    }
}

# Without DEBUG Django logs errors to nobody but the admins, whom a demo lacks.
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": f"process {SITE.name}: %(message)s"}},
    "handlers": {"terminal": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["terminal"], "level": "WARNING"},
    "loggers": {"django": {"handlers": [], "propagate": True}},
}
