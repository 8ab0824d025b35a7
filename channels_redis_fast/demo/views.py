"""The room's page and its three files."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from channels_redis_fast.demo.consumers import (
    CROWD_LIMIT,
    NAME_LENGTH,
    ROOM_LENGTH,
)
from channels_redis_fast.demo.outage import CUTS
from channels_redis_fast.demo.presence import LOOK_EVERY
from channels_redis_fast.demo.site import KEPT, LIVENESS, RESTART_AFTER, process_name
from channels_redis_fast.demo.talk import TEXT_LENGTH

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self' ws:; base-uri 'none'; form-action 'none'"
)
# Served from here because Django serves static files under DEBUG only.
STATIC = Path(__file__).parent / "static"
ASSETS = {
    "room.css": "text/css",
    "room.js": "text/javascript",
    "chart.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def room(request: HttpRequest, room: str) -> HttpResponse:
    """Shows a chat room as this process serves it."""
    if len(room) > ROOM_LENGTH:
        raise Http404(f"a room's name has at most {ROOM_LENGTH} characters")
    site = settings.SITE
    others = [
        {"name": process_name(index), "port": port}
        for index, port in enumerate(site.ports)
        if index != site.index
    ]
    context = {
        "room": room,
        "site": site,
        "others": others,
        "kept": KEPT,
        "cuts": CUTS,
        "gone_after": round(LIVENESS + LIVENESS / 3 + LOOK_EVERY),
        "restart_after": round(RESTART_AFTER),
        "crowd_limit": CROWD_LIMIT,
        "name_length": NAME_LENGTH,
        "text_length": TEXT_LENGTH,
    }
    response = render(request, "room.html", context)
    response["Content-Security-Policy"] = POLICY
    return response


def asset(request: HttpRequest, name: str) -> HttpResponse:
    """Serves one of the page's files."""
    if name not in ASSETS:
        raise Http404(f"no such file: {name!r}")
    return HttpResponse(
        (STATIC / name).read_bytes(),
        content_type=f"{ASSETS[name]}; charset=utf-8",
        headers={"Cache-Control": "no-cache"},
    )
