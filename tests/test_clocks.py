"""The clock that tokens and frames are stamped and checked by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from channels_redis_fast._aead import AesGcmFrames
from channels_redis_fast._framing import FernetFrames
from channels_redis_fast.exceptions import UnreadableMessage

CONTEXTS = {FernetFrames: (), AesGcmFrames: (b"asgispecific.0123456789abcdef!",)}


@pytest.mark.parametrize("offset", [-90, 90])
@pytest.mark.parametrize("make", CONTEXTS)
def test_frames_of_another_clock(make: Callable[..., Any], offset: int) -> None:
    context = CONTEXTS[make]
    here, there = make(["a key"]), make(["a key"])
    there.clock_offset = offset
    sealed = there.seal(b"payload", *context)
    assert there.open(sealed, *context, 0.5) == b"payload"
    with pytest.raises(UnreadableMessage, match=r"older|future"):
        here.open(sealed, *context, 50)
    with pytest.raises(UnreadableMessage, match=r"older|future"):
        there.open(here.seal(b"payload", *context), *context, 50)
