"""Shards: bit for bit those of channels_redis, whatever the name and the ring."""

from __future__ import annotations

import binascii
import itertools

import pytest
from channels_redis.utils import _consistent_hash
from hypothesis import given
from hypothesis import strategies as st

from channels_redis_fast.wire._hashing import shard_of
from support import reference
from support.golden import HASHING as GOLDEN

ring_sizes = st.one_of(st.integers(1, 64), st.integers(1, 2**40))


@pytest.mark.parametrize("name", GOLDEN, ids=lambda name: ascii(name[:20]))
def test_golden(name: str) -> None:
    for ring_size, shard in enumerate(GOLDEN[name], start=1):
        assert shard_of(name, ring_size) == shard
        assert shard_of(name.encode(), ring_size) == shard


@given(st.one_of(st.binary(max_size=200), st.text(max_size=100)), ring_sizes)
def test_agrees_with_reference_and_incumbent(name: str | bytes, ring_size: int) -> None:
    try:
        expected = reference.shard_of(name, ring_size)
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            shard_of(name, ring_size)
    else:
        assert shard_of(name, ring_size) == expected
        assert _consistent_hash(name, ring_size) == expected


@pytest.mark.parametrize(
    "ring_size",
    [
        pytest.param(size, marks=() if size < 17 or not size % 20 else pytest.mark.slow)
        for size in range(1, 300)
    ],
)
def test_every_shard_of_a_ring(ring_size: int) -> None:
    names = [b"%d" % number for number in range(500)]
    shards = [shard_of(name, ring_size) for name in names]
    assert shards == [_consistent_hash(name, ring_size) for name in names]
    assert max(shards) < ring_size


@pytest.mark.parametrize(("bits", "ring_size"), [(2048, 186), (3072, 300), (1024, 372)])
def test_rounds_as_doubles_do(bits: int, ring_size: int) -> None:
    candidates = (b"%d" % number for number in itertools.count())
    name = next(n for n in candidates if binascii.crc32(n) & 0xFFF == bits)
    assert shard_of(name, ring_size) == _consistent_hash(name, ring_size)
    assert shard_of(name, ring_size) != bits * ring_size // 4096


def test_a_subclass_of_str_hashes_as_its_text() -> None:
    name = type("Name", (str,), {})("specific.abc!")
    assert shard_of(name, 16) == shard_of("specific.abc!", 16)


@pytest.mark.parametrize("ring_size", [0, -1, -(2**40)])
def test_an_empty_ring_is_refused(ring_size: int) -> None:
    with pytest.raises(
        ValueError, match=f"ring_size must be at least 1, not {ring_size}"
    ):
        shard_of("chat", ring_size)


@pytest.mark.parametrize("name", [None, 7, bytearray(b"chat"), memoryview(b"chat")])
@pytest.mark.parametrize("ring_size", [1, 4])
def test_other_types_are_refused(name: object, ring_size: int) -> None:
    with pytest.raises(TypeError, match="name must be a str or bytes, not"):
        shard_of(name, ring_size)


@pytest.mark.parametrize("ring_size", [None, "4", 4.0])
def test_ring_size_is_an_int(ring_size: object) -> None:
    with pytest.raises(TypeError):
        shard_of("chat", ring_size)
