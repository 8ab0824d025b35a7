"""The checks of the fuzzer, run on the golden messages and on what it once found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import fuzzing, reference_messages
from support.fuzzing import CHECKS, WORDS, seeds

pytestmark = pytest.mark.slow

# By the check: bytes that one of them failed, as fuzzing left them behind.
FOUND: dict[str, list[bytes]] = {name: [] for name in CHECKS}

checks = pytest.mark.parametrize("name", CHECKS)


@checks
def test_seeds_and_findings(name: str) -> None:
    known = [*seeds(name), *FOUND[name]]
    assert known
    for data in known:
        CHECKS[name](data)


@checks
@given(st.binary(max_size=80), st.integers(0, 255))
def test_any_bytes(name: str, data: bytes, first: int) -> None:
    CHECKS[name](data)
    CHECKS[name](bytes([first]) + data)


@checks
@given(st.data())
def test_spoiled_seeds(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(seeds(name)))
    at = data.draw(st.integers(0, len(seed)))
    word = data.draw(st.sampled_from(WORDS) | st.binary(max_size=3))
    cut = data.draw(st.integers(0, 20))
    CHECKS[name](seed[:at] + word + seed[at + cut :])


@pytest.mark.parametrize(
    ("name", "owner", "function"),
    [
        ("unpack", reference_messages, "unpack"),
        ("fernet", fuzzing.fernet_oracle, "open_at"),
        ("aes_gcm", fuzzing.gcm_oracle, "open_at"),
        ("bundle", fuzzing.reference, "bundle"),
    ],
)
def test_a_difference_is_found(name: str, owner, function: str, monkeypatch) -> None:
    monkeypatch.setattr(owner, function, lambda *args: {"another": "answer"})
    with pytest.raises(AssertionError):
        CHECKS[name](seeds(name)[0])
