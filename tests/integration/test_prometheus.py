"""What Prometheus scrapes of layers, from one process and from several forked ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from channels_redis_fast.contrib import prometheus
from support.forking import needs_fork
from support.layers import opened, soon
from support.servers import Server
from support.syncing import KINDS

MULTIPROCESS = """
import atexit, os, sys
from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from channels_redis_fast.contrib import prometheus
from channels_redis_fast.core import RedisChannelLayer

url, workers = sys.argv[1], int(sys.argv[2])
prometheus.WRITE_EVERY = 0.05
layer = RedisChannelLayer(hosts=[url], capacity=1000)
layer.sync.send("jobs", {})
prometheus.install(layers={"default": layer})
children = []
for worker in range(workers):
    if not (child := os.fork()):
        for _ in range(worker + 1):
            layer.sync.send("jobs", {})
        sys.exit()
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
    multiprocess.mark_process_dead(child)
layer.sync.send("jobs", {})
atexit._run_exitfuncs()  # as at its end
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def samples(text: str) -> dict[str, float]:
    """Each line's value."""
    lines = [line for line in text.splitlines() if line and line[0] != "#"]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def scrape(registry: CollectorRegistry) -> dict[str, float]:
    return samples(generate_latest(registry).decode())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_scrape(valkey: Server, kind: str) -> None:
    registry = CollectorRegistry(auto_describe=True)
    async with opened(valkey.url, kind=kind) as layer:
        layer._hosts[0].traffic.roundtrips.observe(0.1)
        prometheus.install(registry, {"default": layer, "other": object()})
        name = await layer.new_channel()
        await layer.group_add("secret-room", name)
        await layer.group_send("secret-room", {"type": "t"})
        await soon(layer, name)
        await layer.send("secret-jobs", {"type": "t"})
        found = scrape(registry)
        about = f'host="{layer._hosts[0]}",layer="default"'
        sent = "channel_layer_messages_sent_total"
        assert found[f'{sent}{{kind="channel",layer="default"}}'] == 1
        assert found[f'{sent}{{kind="group",layer="default"}}'] == 1
        assert found['channel_layer_deliveries_total{layer="default"}'] == 1
        assert found['channel_layer_members{layer="default"}'] == 1
        assert found[f"channel_layer_up{{{about}}}"] == 1
        count = found[f"channel_layer_roundtrip_seconds_count{{{about}}}"]
        assert count == 1
        last = f'host="{layer._hosts[0]}",layer="default",le="+Inf"'
        assert found[f"channel_layer_roundtrip_seconds_bucket{{{last}}}"] == count
        assert not any(re.search("secret|specific|other", line) for line in found)


def test_the_layers_in_use_are_told(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that nobody asked for are not made for it."""
    registry = CollectorRegistry(auto_describe=True)
    made: dict[str, Any] = {}
    monkeypatch.setattr("channels.layers.channel_layers.backends", made)
    prometheus.install(registry)
    assert scrape(registry) == {}
    made["default"] = KINDS["core"](hosts=[valkey.url])
    assert scrape(registry)['channel_layer_mailboxes{layer="default"}'] == 0


def test_it_is_installed_once() -> None:
    registry = CollectorRegistry(auto_describe=True)
    prometheus.install(registry, {})
    with pytest.raises(ValueError, match="channel_layer"):
        prometheus.install(registry, {})


@needs_fork
def test_forked_workers_add_up(valkey: Server, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MULTIPROCESS, valkey.url, "4"],
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = samples(done.stdout)
    sent = 'channel_layer_messages_sent_total{kind="channel",layer="default"}'
    assert found[sent] == 1 + 1 + 2 + 3 + 4 + 1
    (up,) = [value for line, value in found.items() if "layer_up" in line]
    assert up == 1
