"""Whether closing old database connections would do anything, told without a thread.

Channels closes them before each event, by a hop to the thread in which database calls
run. A connection belongs to the thread that opened it, so it is noted with that one
then; a hop is due when Django's `close_if_unusable_or_obsolete` would do something.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

from asgiref.sync import sync_to_async
from channels import db
from django.db import connections
from django.db.backends.signals import connection_created

Refs = tuple["weakref.ref[Any]", ...]

_opened: dict[int, Refs] = {}  # by the thread's identifier; replaced, never changed
_lock = threading.Lock()


@sync_to_async
def close_old_connections() -> int:
    """Closes what is old, as Channels does before an event; says in which thread."""
    for connection in connections.all(initialized_only=True):
        _note(connection)  # it may have been opened before this module was imported
    db.close_old_connections()  # by the module: tests of applications replace it
    return threading.get_ident()


def are_due(thread: int) -> bool:
    """Whether `close_old_connections` would do anything in a thread."""
    for ref in _opened.get(thread, ()):
        connection = ref()
        if connection is not None and _is_due(connection):
            return True
    return False


def _is_due(connection: Any) -> bool:
    return connection.connection is not None and bool(
        connection.errors_occurred
        or (connection.health_check_enabled and connection.health_check_done)
        or connection.autocommit != connection.settings_dict["AUTOCOMMIT"]
        or (connection.close_at is not None and time.monotonic() >= connection.close_at)
    )


def _note(connection: Any, **_: Any) -> None:
    """Notes a connection, called in its thread; forgets those that are gone."""
    this = threading.get_ident()
    with _lock:
        for thread, refs in list(_opened.items()):
            living = tuple(ref for ref in refs if ref() is not None)
            if living:
                _opened[thread] = living
            else:
                del _opened[thread]
        known = _opened.get(this, ())
        if all(ref() is not connection for ref in known):
            _opened[this] = (*known, weakref.ref(connection))


connection_created.connect(_note, dispatch_uid="channels_redis_fast")
