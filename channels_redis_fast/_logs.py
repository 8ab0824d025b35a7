"""Log lines, which decide nothing: a handler that raises stops nobody."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback

logger = logging.getLogger("channels_redis_fast")


def warn(text: str, *args: object) -> None:
    """Logs a warning. What is to be done beside it is done before."""
    _log(logging.WARNING, text, *args)


def inform(text: str, *args: object) -> None:
    """As `warn`, at level INFO."""
    _log(logging.INFO, text, *args)


def _log(level: int, text: str, *args: object) -> None:
    try:
        logger.log(level, text, *args, stacklevel=3)
    except Exception:
        # As logging itself does with the errors of its own handlers.
        if logging.raiseExceptions and sys.stderr is not None:
            with contextlib.suppress(Exception):
                traceback.print_exc(file=sys.stderr)
