"""What browsers say of where they were: positions, and whatever else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels_redis_fast.types import BEGINNING, position_of
from support.following import GROUP, RULES, numbers, send
from support.loops import Runner
from support.servers import Server
from support.syncing import KINDS

SENT = 3
# However long it takes beside other tests.
PATIENTLY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LIKE_POSITIONS = st.builds(
    "{}@{}-{}".format, st.sampled_from([GROUP, "room-2"]), st.integers(), st.integers()
)
TEXTS = st.one_of(
    *(st.text(), st.text(st.characters()), st.text(f"{GROUP}@0123456789-")),
    LIKE_POSITIONS,
)
NO_TEXTS = st.one_of(
    *(st.binary(), st.booleans(), st.integers(), st.floats()),
    *(st.lists(st.text()), st.dictionaries(st.text(), st.text())),
)


async def opened(layer: Any) -> tuple[str, dict[Any, int]]:
    """A channel, and how much comes after each place that is one."""
    places: dict[Any, int] = {await layer.group_position(GROUP): SENT}
    await send(layer, *range(SENT))
    page = await layer.group_history(GROUP)
    for left, message in zip((2, 1, 0), page.messages, strict=True):
        places[position_of(message)] = left
    return await layer.new_channel(), places | {BEGINNING: SENT}


async def check(layer: Any, name: str, since: Any, left: int | None) -> None:
    """Joins and reads from there on: so much is left, if it is a place."""
    page = await layer.group_history(GROUP, since)
    found = await layer.group_join(GROUP, name, since)
    is_place = left is not None
    assert (found.recovered, found.replayed) == (is_place, left or 0)
    assert (page.recovered, len(page.messages)) == (is_place, left or 0)
    newest = [*range(SENT)][SENT - found.replayed :]
    assert await numbers(layer, name, found.replayed) == newest


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_since(valkey: Server, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    layer: Any = KINDS[kind](hosts=[valkey.url], history=RULES)
    with Runner() as runner:
        name, places = runner.run(opened(layer))
        known = st.sampled_from([*places])
        damaged = st.tuples(known, st.integers(0, 40), st.characters()).map(
            lambda one: one[0][: one[1]] + one[2] + one[0][one[1] + 1 :]
        )

        @PATIENTLY
        @given(st.one_of(TEXTS, known, damaged))
        def try_text(since: str) -> None:
            runner.run(check(layer, name, since, places.get(since)))

        @PATIENTLY
        @given(NO_TEXTS)
        def try_no_text(since: Any) -> None:
            for call in (
                layer.group_history(GROUP, since),
                layer.group_join(GROUP, name, since),
            ):
                with pytest.raises(TypeError, match="since must be a position"):
                    runner.run(call)

        try_text()
        try_no_text()
        runner.run(layer.close_pools())
    assert not caplog.records
