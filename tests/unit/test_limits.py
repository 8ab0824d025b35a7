"""More than msgpack can count."""

from __future__ import annotations

import sys

import pytest

from channels_redis_fast.wire._envelope import splice, splice_list


@pytest.mark.skipif(sys.maxsize < 2**32, reason="such bytes are out of reach")
def test_names_longer_than_msgpack_counts() -> None:
    name = bytes(2**32)  # zeros that nobody reads take no memory
    with pytest.raises(ValueError, match="more than msgpack counts"):
        splice(b"", b"\x80", name)
    with pytest.raises(ValueError, match="more than msgpack counts"):
        splice_list(b"", b"\x80", [name])
