"""What workers import: a layer that was used before they forked, a task, a view.

`LAYER` in the environment is the kind of layer, `HOSTS` its hosts (JSON), `BROKER` a
directory for Celery's messages.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from asgiref.sync import async_to_sync

from support.syncing import KINDS

layer = KINDS[os.environ["LAYER"]](hosts=json.loads(os.environ["HOSTS"]))
layer.sync.send("started", {"pid": os.getpid()})


def work(number: int) -> None:
    """Sends in every way that synchronous code has."""
    about = {"pid": os.getpid(), "n": number}
    layer.sync.group_send("room", {**about, "way": "sync"})
    if not os.environ.get("GEVENT"):
        async_to_sync(layer.group_send)("room", {**about, "way": "drop-in"})
    layer.sync.send("answers", about)


if "BROKER" in os.environ:
    from celery import Celery

    app = Celery("tests", broker="filesystem://")
    app.conf.broker_transport_options = {
        "data_folder_in": os.environ["BROKER"],
        "data_folder_out": os.environ["BROKER"],
        "control_folder": os.environ["BROKER"],
    }
    app.conf.broker_connection_retry_on_startup = True
    app.task(name="work")(work)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """A WSGI application; the path is a number."""
    work(int(environ["PATH_INFO"].strip("/")))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"sent"]
