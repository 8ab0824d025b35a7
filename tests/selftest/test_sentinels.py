"""The Sentinels of the tests watch, fail over and demote."""

from __future__ import annotations

import pytest
import redis
from redis.sentinel import Sentinel

from support.sentinels import SentinelSet

pytestmark = pytest.mark.slow


def test_they_know_the_primary(sentinels: SentinelSet) -> None:
    sentinels.client().set("key", "value")
    assert len(sentinels.replicas) == 1
    found = Sentinel(sentinels.host["sentinels"]).discover_master(sentinels.name)
    assert found == sentinels.primary.address


def test_failover_and_back(own_sentinels: SentinelSet) -> None:
    old = own_sentinels.primary
    own_sentinels.client().set("key", "value")
    assert old.client().wait(1, 5000) == 1
    new = own_sentinels.failover()
    assert new is own_sentinels.primary is not old
    assert not old.running
    assert new.client().get("key") == b"value"
    own_sentinels.revive(old)
    assert own_sentinels.switch() is old
    assert new.client().get("key") == b"value"
    with pytest.raises(redis.ReadOnlyError):
        new.client().set("key", "other")


def test_password() -> None:
    with SentinelSet(replicas=2, password="secret") as own:
        assert len(own.replicas) == 2
        assert own.failover().client().ping()
