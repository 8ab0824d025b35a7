"""A fast Redis channel layer for Django Channels."""

import sys

try:
    from .wire import (  # noqa: F401
        _aead,
        _capacity,
        _envelope,
        _fanout,
        _framing,
        _hashing,
        _names,
    )
except ImportError as _error:
    if not (_error.name or "").startswith(__name__):
        raise  # something else is missing, and the error says what
    raise ImportError(
        f"channels_redis_fast has no compiled modules for this Python, {sys.version}: "
        "install it with pip ('pip install -e .' in a checkout), which needs a C "
        f"compiler where there is no wheel ({_error})"
    ) from None
