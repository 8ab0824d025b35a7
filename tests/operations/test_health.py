"""The check for django-health-check."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer, channel_layers

import support.consuming  # noqa: F401  configures Django
from support.consuming import using
from support.paths import ROOT
from support.servers import Server, free_port
from support.syncing import KINDS


async def result() -> Any:
    """What the check says about the layer in use."""
    pytest.importorskip("health_check.base", reason="django-health-check is missing")
    from channels_redis_fast.contrib.health import ChannelLayerHealthCheck

    return await ChannelLayerHealthCheck().get_result()


@pytest.mark.parametrize("kind", KINDS)
async def test_well(kind: str, guarded: Server) -> None:
    async with using(kind, guarded.url):
        found = await result()
    assert found.error is None
    assert "p@ss" not in str(found.check.labels)


async def test_not_well() -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}"
    async with using("core", url):
        found = await result()
    assert "127.0.0.1" in str(found.error)
    assert "secret" not in str(found.error)


async def test_another_package_s_layer() -> None:
    async with using("in-memory", ""):
        assert isinstance(channel_layers["default"], InMemoryChannelLayer)
        found = await result()
    assert "no layer of channels_redis_fast" in str(found.error)


@pytest.mark.slow
def test_without_the_extra() -> None:
    code = "import sys; sys.modules['health_check'] = None\n"
    code += "import channels_redis_fast.contrib.health"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "channels_redis_fast[health]" in done.stderr.splitlines()[-1]
